#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: compose.sh BASE
#
# Make build/BASE/tree: the base with a commit a patch on the branch "series", ready
# to be built and edited, and print its path.  Patches come from series/BASE/order: of that
# folder, or, as "new NAME", the one that linux/commits/NAME.msg describes, made of files
# under linux/.  A line "set NAME" begins a set of patches that are mailed together.  A tree
# with edits that writeback.sh has not seen is left alone, unless FORCE=1.

. "$(dirname "$0")/lib.sh"
load_base "${1:-}"
work=''
commit=''

# What git says when a pack is damaged, whatever it was about to do
damaged()
{
	! grep -qE 'corrupt|inflate|bad (object|tree)|unable to read|missing blob|packfile .* (cannot be|does not|index)' "$1" ||
		die "the source in $base is damaged; remove it, and what was composed from it: rm -rf '$base' '$TREE'"
}

# Sets $commit to a commit of the index on top of $commit.
commit_index()
{
	local message=$1 tree

	tree=$(git -C "$TREE" write-tree)
	[[ $tree != "$(git -C "$TREE" rev-parse "$commit^{tree}")" ]] ||
		die "series/$BASE/order: '$2' changes nothing that is not there already"
	commit=$(git -C "$TREE" commit-tree "$tree" -p "$commit" -F "$message")
}

apply_patch()
{
	local name=$1 patch=$SERIES/$1 where

	[[ -f $patch ]] || die "series/$BASE/order names $name, which is not in series/$BASE"
	git -C "$TREE" mailinfo "$work/msg" "$work/diff" < "$patch" > "$work/info" 2> "$work/err" ||
		die "series/$BASE/$name is not a patch with a subject, a message and a diff"
	if ! git -C "$TREE" apply --cached --whitespace=nowarn "$work/diff" 2> "$work/err"; then
		damaged "$work/err"
		where=$(sed -nE 's/^error: patch failed: //p; s/^error: ([^:]+): (does not exist in index|already exists in index|No such file.*)$/\1 (\2)/p' \
			"$work/err" | head -n 1)
		! git -C "$TREE" apply --cached --reverse --check "$work/diff" 2>/dev/null ||
			die "series/$BASE/$name is in this kernel already; take it out of series/$BASE/order"
		die "series/$BASE/$name does not apply: ${where:-$(head -n 1 "$work/err")}"
	fi
	{
		sed -n 's/^Subject: //p' "$work/info"
		echo
		cat "$work/msg"
	} > "$work/message"
	commit_index "$work/message" "$name"
}

# The files that the last paragraph of a message names, relative to linux/: "File: GLOB".  It
# may have lines, too, that are added to files of the tree: "Line: FILE: TEXT".
listed_files()
{
	local glob

	sed -n 's/^File: *//p' "$1" | while read -r glob; do
		# shellcheck disable=SC2086	# the glob is to be expanded
		(cd "$TOP/linux" && find $glob -type f 2>/dev/null | grep .) ||
			die "linux/commits/${1##*/}: no file matches linux/$glob"
	done | sort -u
}

# add_line MESSAGE FILE TEXT: after the last line of the file that begins with the same word,
# and names something as deep in folders, if there is one
add_line()
{
	local mode

	mode=$(git -C "$TREE" ls-files -s -- "$2" | cut -d ' ' -f 1)
	[[ -n $mode ]] || die "linux/commits/${1##*/} adds a line to $2, which is not there"
	git -C "$TREE" cat-file blob ":$2" | awk -v text="$3" '
		function depth(what) { return gsub("/", "/", what) }
		{ line[NR] = $0 }
		$1 == word { any = NR; if (depth($NF) == deep) last = NR }
		BEGIN { n = split(text, words); word = words[1]; deep = depth(words[n]) }
		END {
			last = last ? last : any
			for (i = 1; i <= NR; i++)
				print line[i] (i == last ? "\n" text : "")
			exit !last
		}' > "$work/with-line" ||
		die "linux/commits/${1##*/}: no line of $2 begins with '${3%% *}'"
	git -C "$TREE" update-index --cacheinfo "$mode,$(git -C "$TREE" hash-object -w --no-filters "$work/with-line"),$2"
}

add_files()
{
	local name=$1 msg=$TOP/linux/commits/$1.msg file mode blob stamp list line

	[[ -f $msg ]] || die "series/$BASE/order says 'new $name', but there is no linux/commits/$name.msg"
	list=$(listed_files "$msg")
	[[ -n $list ]] || die "linux/commits/$name.msg names no files (lines 'File: PATH' at its end)"
	while read -r file; do
		mode=100644
		[[ ! -x $TOP/linux/$file ]] || mode=100755
		blob=$(git -C "$TREE" hash-object -w --no-filters "$TOP/linux/$file")
		git -C "$TREE" update-index --add --cacheinfo "$mode,$blob,$file"
	done <<< "$list"
	while read -r line; do
		add_line "$msg" "${line%%: *}" "${line#*: }"
	done < <(sed -n 's/^Line: *//p' "$msg")
	sed '/^\(File\|Line\): /d' "$msg" | git -C "$TREE" stripspace > "$work/message"
	stamp=$(git -C "$TOP" log -1 --format=%aI -- "linux/commits/$name.msg" 2>/dev/null) || stamp=
	GIT_AUTHOR_NAME=${LAB_NAME:-lab} GIT_AUTHOR_EMAIL=${LAB_EMAIL:-lab@localhost} \
		GIT_AUTHOR_DATE=${stamp:-$(date -Iseconds)} commit_index "$work/message" "new $name"
}

compose()
{
	local kind name rest index

	scratch work "$OUT"
	index=$work/index
	export GIT_INDEX_FILE=$index
	commit=$(git -C "$TREE" rev-parse 'base^{commit}')
	git -C "$TREE" read-tree "$commit" 2> "$work/err" || {
		damaged "$work/err"
		die "git cannot read the base in $TREE: $(head -n 1 "$work/err")"
	}
	[[ -z $(tail -c 1 "$SERIES/order") ]] ||
		say "series/$BASE/order does not end with a newline; its last line is read all the same"
	while read -r kind name rest || [[ -n $kind ]]; do
		case $kind in
		''|'#'*|set)	continue ;;
		new)		add_files "$name" ;;
		*)		apply_patch "$kind" ;;
		esac
		[[ -z $rest ]] || die "series/$BASE/order: cannot read '$kind $name $rest'"
	done < "$SERIES/order"
	unset GIT_INDEX_FILE
}

# What the composed tree was made from.
inputs()
{
	{
		cd "$TOP" || exit 1
		echo "$base"
		find "series/$BASE" linux -type f -printf '%m %p\n' | sort
		find "series/$BASE" linux -type f -print0 | sort -z | xargs -0 sha256sum
	} | sha256sum | cut -d ' ' -f 1
}

# It has its place when it is complete, so what else is there is not the lab's.
clone_tree()
{
	rm -rf "$new" || return 1
	git clone -q --local --no-checkout -o source "$base" "$new" || return 1
	git -C "$new" remote remove source || return 1
	git -C "$new" config gc.auto 0 || return 1
	mkdir -p "$new/.git/info" "$new/.git/lab" || return 1
	printf '%s\n' /obj-debug/ /obj-release/ >> "$new/.git/info/exclude" || return 1
	git -C "$new" checkout -q -B series base || return 1
	adopt_objects "$base" "$new" "$TREE" || return 1
	git -C "$new" rev-parse HEAD > "$new/.git/lab/commit" || return 1
	echo "$base" > "$new/.git/lab/base" || return 1
	mv -T "$new" "$TREE"
}

# What an interrupted checkout leaves of a file is as much as it had written.  Anything
# else is an edit.
edited_meanwhile()
{
	local head file

	head=$(git -C "$TREE" rev-parse HEAD)
	[[ $head == "$(cat "$state/commit")" || $head == "$(cat "$state/next")" ]] || return 0
	while read -r -d '' file; do
		[[ -e $TREE/$file ]] || continue
		git -C "$TREE" cat-file blob "$(cat "$state/next"):$file" 2>/dev/null |
			cmp -s -n "$(stat -c %s "$TREE/$file")" - "$TREE/$file" || return 0
	done < <(git -C "$TREE" diff -z --name-only HEAD)
	return 1
}

# Only what differs is written, so that the next build compiles little.
switch()
{
	git -C "$TREE" checkout -q -f -B series "$(cat "$state/next")" 2> "$LOGS/switch.log" || {
		damaged "$LOGS/switch.log"
		die "git cannot check out the series in $TREE: $(reason "$LOGS/switch.log")"
	}
	mv "$state/next" "$state/commit"
}

base=$("$TOP/lab/fetch.sh" "$BASE")
[[ -f $SERIES/order ]] || die "series/$BASE/order is missing: this base has no series yet"
lock "$OUT/.lock-tree"
state=$TREE/.git/lab
new=$OUT/.tmp.tree

[[ ! -d $TREE || -f $state/base ]] ||
	die "$TREE is not a tree that the lab has made; move it away"
if [[ -f $state/next ]]; then
	say "finishing an interrupted compose"
	rm -f "$TREE/.git/index.lock"
	if [[ -z ${FORCE:-} ]] && edited_meanwhile; then
		die "$TREE has edits that were made when it was half composed; save them elsewhere, FORCE=1 drops them"
	fi
	switch
fi
if [[ -d $TREE && -z ${FORCE:-} ]] && edited "$TREE"; then
	[[ $(cat "$state/base") == "$base" ]] ||
		die "$TREE has edits ($edit), and is of another source ($(cat "$state/base")); make writeback saves commits of the series, make compose FORCE=1 drops edits"
	say "$TREE has edits of its own ($edit) and is used as it is (make writeback saves commits of the series, make compose FORCE=1 drops edits)"
	echo "$TREE"
	exit 0
fi
if [[ -d $TREE && $(cat "$state/base") != "$base" ]]; then
	say "the base is another one; making $TREE anew"
	rm -rf "$TREE"
fi
if [[ ! -d $TREE ]]; then
	need_space "$OUT" 3000 "a kernel tree"
	progress "cloning the source into build/$BASE/tree" "$LOGS/clone.log" clone_tree || {
		damaged "$LOGS/clone.log"
		die "cannot make $TREE: $(reason "$LOGS/clone.log")"
	}
elif [[ -n ${FORCE:-} ]]; then
	git -C "$TREE" reset -q --hard
	git -C "$TREE" clean -qfd
	rm -f "$state/inputs"
fi

want=$(inputs)
if [[ $(cat "$state/inputs" 2>/dev/null) != "$want" ]]; then
	compose
	rm -rf "$state/inputs" "$state/given"
	echo "$commit" > "$state/next"
	switch
	remember_given
	echo "$want" > "$state/inputs"
	say "composed $(git -C "$TREE" rev-list --count base..series) patches in $TREE"
fi
echo "$TREE"
