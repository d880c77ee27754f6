#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: mail-check.sh BASE SET [FOLDER]
#
# Check what lab/mail.sh wrote of a set, to build/BASE/mail if no FOLDER is given: as text, as
# patches, and as the mail that git send-email makes of it, which goes to a script here
# and nowhere else.

# Functions are called by way of check, which shellcheck does not see:
# shellcheck disable=SC2317
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/sender.sh"
load_base "${1:-}"
mail=${3:-$OUT/mail}
work=''

readonly WIDTH=75

[[ -d $mail ]] || die "there is no $mail; run make mail first"
[[ -d $TREE ]] || die "there is no $TREE; run make compose first"
mail=$(absolute "$mail")
the_set "${2:-}"
scratch work "$OUT"
name=$LAB_NAME email=$LAB_EMAIL
mapfile -t patches < <(find "$mail" -name '*.eml' ! -name '0000-*' | sort)
cover=$(find "$mail" -name '0000-*.eml')
if [[ -z $cover && ${#patches[@]} == 1 ]]; then
	# A patch alone has the text of the cover letter below its message
	cover=$work/cover
	awk '/^---$/ { part++; next } !body || part == 1; /^$/ { body = 1 }' "${patches[0]}" > "$cover"
fi
[[ -f $cover && ${#patches[@]} -gt 0 ]] || die "$mail is no series with a cover letter"
mapfile -t mails < <(find "$mail" -name '*.eml' | sort)
newest=$(bases | tail -n 1)

sender_git()
{
	GIT_CONFIG_GLOBAL=$work/gitconfig as_sender git "$@"
}
git config -f "$work/gitconfig" user.name "$name"
git config -f "$work/gitconfig" user.email "$email"
git config -f "$work/gitconfig" b4.attestation-policy off

# shellcheck source=lab/ktap.sh
. "$TOP/lab/ktap.sh"

# check WHAT COMMAND...: what COMMAND prints is wrong
check()
{
	local what=$1 status=0

	shift
	"$@" > "$work/wrong" 2>&1 || status=$?
	if ((status == 0)) && [[ ! -s $work/wrong ]]; then
		result ok "$what"
	else
		result fail "$what" "$work/wrong"
	fi
}

# A field of the header of a mail, unfolded
field()
{
	sed '/^$/q' "$1" | awk -v name="$2:" '
		index(tolower($0), tolower(name)) == 1 { on = 1; sub(/^[^:]*: */, ""); printf "%s", $0; next }
		on && /^[ \t]/ { sub(/^[ \t]+/, " "); printf "%s", $0; next }
		{ on = 0 }'
}

# The addresses in such a field, one a line, sorted
addresses()
{
	field "$1" "$2" | tr ',' '\n' | sed 's/.*<\([^<>]*\)>.*/\1/; s/^ *//; s/ *$//' | grep . | sort || :
}

message_of()
{
	sed '1,/^$/d; /^---$/,$d' "$1"
}

#
# Text
#
has_placeholders()
{
	grep -nE '\*\*\* (SUBJECT|BLURB)|%[A-Z]+%|^@[a-z]|#[a-z]+\b' "$cover" || :
}

# All but links, drawings, and the list of files, which is git's
cover_is_narrow()
{
	sed '1,/^$/d; / ([0-9]*):$/,$d' "$cover" | grep -v '^\[[0-9]*\] https://' |
		awk -v width="$WIDTH" 'length > (/^ +([|]|[+]-)/ ? 80 : width) { print length ": " $0 }'
}

is_ascii()
{
	LC_ALL=C grep -nP '[^\x00-\x7f]' "$cover" || :
	sed '1,/^$/d; / ([0-9]*):$/,$d' "$cover" | grep -n $'\t' || :
}

no_trailing_blanks()
{
	local patch

	sed '1,/^$/d' "$cover" | grep -nE '[[:blank:]]$' || :
	for patch in "${patches[@]}"; do
		message_of "$patch" | grep -HnE --label="${patch##*/}" '[[:blank:]]$' || :
	done
}

# Each [1] in the text is in the list below it, and the other way round.
references_are_there()
{
	diff <(grep -v '^\[[0-9]*\] https://' "$cover" | grep -oE '\[[0-9]+\]' | sort -u) \
		<(sed -n 's/^\(\[[0-9]*\]\) https:.*/\1/p' "$cover" | sort -u) | grep '^[<>]' || :
}

subjects_are_short()
{
	local patch subject

	for patch in "${patches[@]}" "$cover"; do
		subject=$(field "$patch" Subject | sed 's/^\[[^]]*\] //')
		((${#subject} <= 75)) || echo "${#subject}: $subject"
	done
}

is_signed()
{
	local patch

	for patch in "${patches[@]}"; do
		[[ $(message_of "$patch" | tail -n 1) == "Signed-off-by: $name <$email>" ]] ||
			echo "${patch##*/}: the last line is no sign-off by $name <$email>"
	done
}

is_addressed()
{
	local file

	for file in "$cover" "${patches[@]}"; do
		[[ -n $(addresses "$file" To) ]] || echo "${file##*/}: no To"
		[[ -n $(addresses "$file" Cc) ]] || echo "${file##*/}: no Cc"
		{
			addresses "$file" To
			addresses "$file" Cc
		} | sort | uniq -d | sed "s,^,${file##*/}: twice: ,"
		{
			addresses "$file" To
			addresses "$file" Cc
		} | grep -vE '^[^@ ]+@[^@ ]+\.[a-z]+$' | sed "s,^,${file##*/}: no address: ," || :
		! { addresses "$file" To; addresses "$file" Cc; } | grep -qixF -- "$email" ||
			echo "${file##*/}: to the sender"
		[[ $BASE == "$newest" ]] ||
			! grep -q stable@ "$file" || echo "${file##*/}: to stable, without an upstream commit"
	done
}

everybody_gets_the_cover()
{
	local file

	for file in "${patches[@]}"; do
		addresses "$file" To
		addresses "$file" Cc
	done | sort -u | comm -23 - <({ addresses "$cover" To; addresses "$cover" Cc; } | sort -u)
}

#
# Patches
#
applies()
{
	local am=$work/am

	# Just the files that are touched are checked out.
	sender_git clone -q -s -n "$TREE" "$am" || return 1
	sender_git -C "$am" config gc.auto 0
	git -C "$TREE" diff --name-only "$from" "$to" |
		sender_git -C "$am" sparse-checkout set --no-cone --stdin || return 1
	sender_git -C "$am" checkout -q --detach "$from" || return 1
	sender_git -C "$am" am -q "${patches[@]}" || return 1
	[[ $(git -C "$am" rev-parse 'HEAD^{tree}') == "$(git -C "$TREE" rev-parse "$to^{tree}")" ]] ||
		echo "git am makes another tree than the series"
	git -C "$am" log --format='%an <%ae>' "$from..HEAD" | grep -vxF "$name <$email>" || :
	sender_git -C "$am" checkout -q --detach "$from" || return 1
}

# New files are below folders that MAINTAINERS has.  The commits that Fixes: names are in
# Linux's history, which a composed tree has not.
checkpatch()
{
	local patch

	mkdir -p "$work/bin"
	ln -sf /usr/bin/python3 "$work/bin/python"
	cd "$TREE" || return 1
	for patch in "${patches[@]}"; do
		PATH=$work/bin:$PATH ./scripts/checkpatch.pl --strict --no-summary --show-types \
			--ignore FILE_PATH_CHANGES,UNKNOWN_COMMIT_ID "$patch" > "$work/checkpatch" 2>&1 || :
		! grep -qE '^(ERROR|WARNING|CHECK)' "$work/checkpatch" || cat "$work/checkpatch"
	done
}

#
# Mail
#
# What git send-email calls instead of sendmail: it keeps what it is given.
make_sink()
{
	mkdir -p "$work/sent"
	cat > "$work/sendmail" <<-EOF
	#!/bin/sh
	n=\$(ls "$work/sent" | wc -l)
	n=\$(printf %04d "\$n")
	printf '%s\n' "\$@" > "$work/sent/\$n"
	cat > "$work/sent/\$n.mail"
	mv "$work/sent/\$n" "$work/to.\$n"
	EOF
	chmod +x "$work/sendmail"
}

send()
{
	make_sink
	sender_git -C "$work" send-email --quiet --confirm=never --sendmail-cmd="$work/sendmail" \
		"$mail"/*.eml < /dev/null > "$work/send.log" 2>&1 || {
		tail -n 5 "$work/send.log"
		return 1
	}
	mapfile -t sent < <(find "$work/sent" -name '*.mail' | sort)
	((${#sent[@]} == ${#mails[@]})) || echo "${#sent[@]} mails were sent of ${#mails[@]}"
}

is_a_thread()
{
	local first=${sent[0]} id mail

	id=$(field "$first" Message-Id)
	[[ -n $id && -z $(field "$first" In-Reply-To) ]] || echo "the cover letter does not come first"
	for mail in "${sent[@]:1}"; do
		[[ $(field "$mail" In-Reply-To) == "$id" ]] || echo "not below the cover letter: $(field "$mail" Subject)"
		[[ $(field "$mail" References) == *"$id"* ]] || echo "no reference: $(field "$mail" Subject)"
	done
	for mail in "${sent[@]}"; do
		field "$mail" Message-Id
		echo
	done | sort | uniq -d
}

# Whom it goes to is who is in the header, and the sender.
goes_to_the_right_ones()
{
	local mail i=0

	for mail in "${sent[@]}"; do
		comm -3 <({ addresses "$mail" To; addresses "$mail" Cc; echo "$email"; } | sort -u) \
			<({ grep @ "$work/to.$(printf %04d $i)"; echo "$email"; } | sort -u) |
			sed "s/^/$(field "$mail" Subject | tr -d '/&'): /"
		i=$((i + 1))
	done
	for mail in "${sent[@]}"; do
		[[ $(addresses "$mail" From) == "$email" ]] || echo "from another: $(field "$mail" From)"
	done
	diff <(for mail in "${mails[@]}"; do { addresses "$mail" To; addresses "$mail" Cc; } | sort; done) \
		<(for mail in "${sent[@]}"; do { addresses "$mail" To; addresses "$mail" Cc; } |
			grep -vxF "$email" | sort; done) | grep '^[<>]' || :
}

is_plain()
{
	local mail encoding

	for mail in "${sent[@]}"; do
		! sed '/^$/q' "$mail" | LC_ALL=C grep -qP '[^\x00-\x7f]' || echo "raw bytes in the header: $(field "$mail" Subject)"
		encoding=$(field "$mail" Content-Transfer-Encoding)
		[[ -z $encoding || $encoding == 7bit || $encoding == 8bit ]] ||
			echo "$encoding: $(field "$mail" Subject)"
	done
}

# As a maintainer takes it from the list
b4_applies()
{
	local mbox=$work/mbox mail id

	for mail in "${sent[@]}"; do
		echo "From nobody Thu Jan  1 00:00:00 1970"
		sed 's/^\(>*From \)/>\1/' "$mail"
		echo
	done > "$mbox"
	id=$(field "${sent[0]}" Message-Id | tr -d '<>')
	mkdir "$work/b4"
	HOME=$work XDG_DATA_HOME=$work XDG_CACHE_HOME=$work GIT_CONFIG_GLOBAL=$work/gitconfig \
		b4 --offline-mode --no-stdin am --no-cache -m "$mbox" -o "$work/b4" "$id" \
		< /dev/null > "$work/b4.log" 2>&1 || {
		tail -n 5 "$work/b4.log"
		return 1
	}
	sender_git -C "$work/am" am -q "$work"/b4/*.mbx || return 1
	[[ $(git -C "$work/am" rev-parse 'HEAD^{tree}') == "$(git -C "$TREE" rev-parse "$to^{tree}")" ]] ||
		echo "what b4 am takes is another tree than the series"
}

check 'the cover letter is filled in' has_placeholders
check "and no line of it is longer than $WIDTH" cover_is_narrow
check 'it is ASCII, without tabs' is_ascii
check 'what it refers to is listed' references_are_there
check 'no blanks at ends of lines' no_trailing_blanks
check 'subjects have 75 characters or less' subjects_are_short
check "all is signed off by $name" is_signed
check 'everything has To and Cc, nobody twice' is_addressed
check 'who gets a patch gets the cover letter' everybody_gets_the_cover
check 'git am makes the tree of the series' applies
check 'checkpatch --strict, with sign-offs' checkpatch
sent=()
check "git send-email sends ${#mails[@]} mails" send
if ((${#sent[@]})); then
	check 'they are one thread' is_a_thread
	check 'they go to those in the header' goes_to_the_right_ones
	check 'they are plain text' is_plain
	check 'b4 am takes the series from them' b4_applies
fi
ktap_end
