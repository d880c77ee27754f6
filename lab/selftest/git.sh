# shellcheck shell=bash disable=SC2154,SC2034,SC2164
# SPDX-License-Identifier: GPL-2.0
#
# Whatever git is told by its user's configuration and environment, the lab makes the same.

# written HOME [VARIABLE=VALUE]...: the series as it comes out for such a user, and its commits
written()
{
	local home=$1 in

	shift
	in=$(mktemp -d "$work/user.XXXXXX")
	fresh env "$@" HOME="$home" CACHE="$in/cache" BUILD="$in/build" KERNEL_SRC="$kernel" \
		"$project/lab/series.sh" 0.1 > "$in/said" 2>&1 || { cat "$in/said"; return 1; }
	git -C "$in/build/0.1/tree" log --format='%T %an %ae %s'
	# The message of a file that is not committed has no date yet
	cat "$in/build/0.1/series"/* | sed 's/^Date: .*/Date:/'
}

mkdir -p "$work"/{plain,hostile}
cp "$plain" "$work/plain/.gitconfig"
cp "$plain" "$work/hostile/.gitconfig"
mkdir -p "$work/hostile/hooks" "$work/hostile/template/hooks" "$work/hostile/.config/git"
for hook in pre-commit commit-msg post-checkout post-commit applypatch-msg pre-applypatch reference-transaction; do
	printf '#!/bin/sh\necho %s says no; exit 1\n' $hook |
		tee "$work/hostile/hooks/$hook" > "$work/hostile/template/hooks/$hook"
	chmod +x "$work/hostile/hooks/$hook" "$work/hostile/template/hooks/$hook"
done
echo '*' > "$work/hostile/.config/git/ignore"
echo '* text eol=crlf' > "$work/hostile/.config/git/attributes"
cat >> "$work/hostile/.gitconfig" <<-EOF
	[commit]
		gpgSign = true
	[tag]
		gpgSign = true
	[gpg]
		program = false
	[core]
		hooksPath = $work/hostile/hooks
		autocrlf = true
		eol = crlf
		abbrev = 5
		fsmonitor = false
		pager = false
		whitespace = tab-in-indent,cr-at-eol
		attributesFile = $work/hostile/.config/git/attributes
		excludesFile = $work/hostile/.config/git/ignore
	[init]
		templateDir = $work/hostile/template
		defaultBranch = other
	[format]
		signOff = true
		subjectPrefix = RFC
		suffix = .txt
		numbered = true
		attach = border
		thread = deep
		coverLetter = true
		outputDirectory = $work/nowhere
		signature = me
		useAutoBase = true
		pretty = fuller
		notes = true
	[diff]
		noprefix = true
		mnemonicPrefix = true
		context = 9
		interHunkContext = 9
		external = false
		algorithm = histogram
		orderFile = $work/nowhere
	[color]
		ui = always
	[log]
		showSignature = true
		date = relative
	[i18n]
		commitEncoding = ISO-8859-1
		logOutputEncoding = ISO-8859-1
	[status]
		showUntrackedFiles = no
	[clone]
		defaultRemoteName = other
	[apply]
		whitespace = error-all
	[mailinfo]
		scissors = true
	[trailer]
		separators = "#"
	[alias]
		apply = !false
EOF
written "$work/plain" > "$work/plain.out" || :
expect "a series of somebody's" 0 '^Signed-off-by: A Sender <sender@example.org>$' cat "$work/plain.out"
expect 'is from them' 0 '^From: A Sender <sender@example.org>$' cat "$work/plain.out"
written "$work/hostile" > "$work/hostile.out" || :
expect 'signing, hooks, templates and formats of git change nothing of it' 0 '^$' \
	bash -c "diff '$work/plain.out' '$work/hostile.out' && echo"
written "$work/plain" GIT_DIR="$work/nowhere" GIT_WORK_TREE="$work/nowhere" GIT_INDEX_FILE="$work/nowhere/index" \
	GIT_OBJECT_DIRECTORY="$work/nowhere" GIT_EXTERNAL_DIFF=false GIT_DIFF_OPTS=-u0 GIT_TEMPLATE_DIR="$work/hostile/template" \
	GIT_AUTHOR_NAME=another GIT_AUTHOR_EMAIL=another@example.org GIT_AUTHOR_DATE='2001-01-01 00:00:00' \
	GIT_NAMESPACE=another GIT_CONFIG_PARAMETERS="'commit.gpgsign=true'" GIT_CONFIG_COUNT=1 \
	GIT_CONFIG_KEY_0=core.hooksPath GIT_CONFIG_VALUE_0="$work/hostile/hooks" > "$work/environment.out" || :
expect 'nor does the environment' 0 '^$' bash -c "diff '$work/plain.out' '$work/environment.out' && echo"
git -C "$tree" config format.subjectPrefix RFC
git -C "$tree" config diff.noprefix true
expect 'nor does the configuration of the tree' 0 '^Subject: \[PATCH 1/' \
	bash -c "KERNEL_SRC='$kernel' '$project/lab/series.sh' 0.1 2> /dev/null; cat '$BUILD'/0.1/series/0001*"
git -C "$tree" config --unset format.subjectPrefix
git -C "$tree" config --unset diff.noprefix
expect 'a series of nobody says what is missing' 0 'who sends this\? run: git config --global user.name' \
	on_kernel series 0.1
