# shellcheck shell=bash disable=SC2154,SC2034,SC2164
# SPDX-License-Identifier: GPL-2.0
# Mail.  The lab must not take anybody for the sender who is not.
sender=$work/sender
letter=$BUILD/0.1/mail
mail()
{
	env GIT_CONFIG_GLOBAL="$sender" GIT_CONFIG_NOSYSTEM=1 KERNEL_SRC="$kernel" "$@"
}

: > "$sender"
sed -i 's/^vfio-count-further/\nset one\n&/' "$project/series/0.1/order"
on_kernel compose 0.1 > /dev/null 2>&1
expect 'mail is of a set' fail 'which set of patches. give SET=, one of: two one' mail "$project/lab/mail.sh" 0.1
expect 'that there is' fail 'SET=three: there is no such set .* there are: two one' \
	mail SET=three "$project/lab/mail.sh" 0.1
export SET=two
expect 'mail needs a name' fail 'who sends this.*user.name' mail "$project/lab/mail.sh" 0.1
git config -f "$sender" user.name 'A Sender'
expect 'and an address' fail 'who sends this.*user.email' mail "$project/lab/mail.sh" 0.1
git config -f "$sender" user.email nobody@localhost
expect 'that works' fail "'nobody@localhost' is no address" mail "$project/lab/mail.sh" 0.1
git config -f "$sender" user.email sender@example.org
expect 'a version is a number' fail 'V=two: not the number' mail V=two "$project/lab/mail.sh" 0.1
expect 'a version says what changed' fail 'no section v4' mail V=4 "$project/lab/mail.sh" 0.1
expect 'on this kernel' fail 'no section v3 that is for set two of 0.1' mail V=3 "$project/lab/mail.sh" 0.1
echo 'vfio: No such patch' >> "$project/mail/trailers"
cp "$project/lab/packages" "$work/packages"
: > "$project/lab/packages"
expect 'trailers are for patches that there are' fail "no patch has the subject 'vfio: No such patch'" \
	mail "$project/lab/mail.sh" 0.1
sed -i '$d' "$project/mail/trailers"
if [[ -x $(git --exec-path)/git-send-email ]] && command -v b4 >/dev/null; then
	expect 'mail that can be sent' 0 'send: git send-email' mail "$project/lab/mail.sh" 0.1
	expect 'is all of the set' 0 '^3$' bash -c "find '$letter' -name '*.eml' | wc -l"
	expect 'from the sender, with who had the idea' 0 '^To: A Maintainer.*Cc: list@.* An Other <b@.*Suggested-by: An.*Signed-off-by: A Sender <sender@' \
		bash -c "grep -hE '^(To|Cc|    |Suggested|Signed)' '$letter'/0001-* | head -n 5 | tr -s '\n ' ' '"
	expect 'with numbers in the cover letter' 0 '^Patch 1 counts on.' cat "$letter"/0000-*
	expect 'and in what that includes' 0 '^Nobody has read patch 2' cat "$letter"/0000-*
	expect 'the set after it' 0 'send: git send-email' mail SET=one "$project/lab/mail.sh" 0.1
	expect 'is a patch' 0 'PATCH. vfio: Count further' grep -h ^Subject "$letter"/0001-*
	expect 'and says what comes before' 0 '^2$' grep -c '^prerequisite-patch-id: [0-9a-f]\{40\}$' "$letter"/0001-*
	mail "$project/lab/mail.sh" 0.1 > /dev/null 2>&1
	cp -r "$letter" "$work/bad"
	sed -i '/^To:/d' "$work"/bad/0001-*
	expect 'mail to nobody' fail 'not ok [0-9]+ - everything has To' mail "$project/lab/mail-check.sh" 0.1 two "$work/bad"
	cp "$letter"/* "$work/bad/"
	sed -i 's/^+2/+3/' "$work"/bad/0001-*
	expect 'mail of something else' fail 'not ok [0-9]+ - git am makes the tree' mail "$project/lab/mail-check.sh" 0.1 two "$work/bad"
	cp "$letter"/* "$work/bad/"
	sed -i '/^Signed-off-by/d' "$work"/bad/0002-*
	expect 'mail that nobody signs' fail 'not ok [0-9]+ - all is signed off' mail "$project/lab/mail-check.sh" 0.1 two "$work/bad"
	cp "$letter"/* "$work/bad/"
	sed -i 's/^In-Reply-To: .*/In-Reply-To: <another@example.org>/' "$work"/bad/0002-*
	expect 'mail that is no thread' fail 'not ok [0-9]+ - they are one thread' mail "$project/lab/mail-check.sh" 0.1 two "$work/bad"
	expect 'a second version' 0 'send: git send-email' mail V=2 "$project/lab/mail.sh" 0.1
	expect 'says what changed, and is numbered' 0 'PATCH v2 0/2.*Changes in v2: - Count further.' \
		bash -c "grep -hE '^(Subject|Changes|- )' '$letter'/0000-* | tr '\n' ' '"
	expect 'for a tree without history there is no commit to name' fail '^$' \
		bash -c "grep -h '^base-commit' '$letter'/0000-* || { echo; exit 1; }"
	cp -r "$kernel" "$work/linux"
	git -C "$work/linux" init -q
	git -C "$work/linux" add .
	git -C "$work/linux" -c user.name=nobody -c user.email=nobody@localhost commit -q -m 'Linux 0.1'
	expect 'a clone of Linux' 0 'send: git send-email' mail KERNEL_SRC="$work/linux" "$project/lab/mail.sh" 0.1
	expect 'is named by its commit' 0 "^base-commit: $(git -C "$work/linux" rev-parse HEAD)" \
		cat "$letter"/0000-*
	on_kernel compose 0.1 > /dev/null 2>&1
else
	skip mail 'no git send-email, or no b4'
fi
cp "$work/packages" "$project/lab/packages"
