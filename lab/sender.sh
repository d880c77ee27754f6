# shellcheck shell=bash disable=SC2154
# SPDX-License-Identifier: GPL-2.0
#
# The series in the name of whoever sends it: git config's, and nobody else's.

# Says what is missing, if anything is.
no_sender()
{
	local why='' run=()

	[[ -n $LAB_NAME && $LAB_NAME != *[\<\>@]* ]] || run+=("git config --global user.name 'YOUR NAME'")
	if [[ ! $LAB_EMAIL =~ ^[^@\<\>[:space:]]+@[^@\<\>[:space:]]+\.[A-Za-z]+$ ]]; then
		[[ -z $LAB_EMAIL ]] || why="'$LAB_EMAIL' is no address that can be answered; "
		run+=("git config --global user.email ADDRESS")
	fi
	((${#run[@]})) || return 1
	printf '%srun: %s' "$why" "${run[0]}"
	[[ ${#run[@]} == 1 ]] || printf '; %s' "${run[1]}"
}

as_sender()
{
	GIT_AUTHOR_NAME=$LAB_NAME GIT_AUTHOR_EMAIL=$LAB_EMAIL \
		GIT_COMMITTER_NAME=$LAB_NAME GIT_COMMITTER_EMAIL=$LAB_EMAIL "$@"
}

# trailers SUBJECT: what mail/trailers has for it
trailers()
{
	[[ -f $TOP/mail/trailers ]] || return 0
	awk -v subject="$1" '
		/^#/ { next }
		/^\t/ { if (mine) print substr($0, 2); next }
		{ mine = $0 == subject }' "$TOP/mail/trailers"
}

# Every subject in mail/trailers is that of a patch, for this kernel or another.
check_trailers()
{
	local subject patch

	{
		cat "$TOP"/linux/commits/*.msg 2>/dev/null
		for patch in "$TOP"/series/*/*.patch; do
			git mailinfo /dev/null /dev/null < "$patch" | sed -n 's/^Subject: //p'
		done
	} > "$work/subjects"
	while read -r subject; do
		grep -qxF -- "$subject" "$work/subjects" ||
			die "mail/trailers: no patch has the subject '$subject'"
	done < <(grep -v $'^\(#\|\t\|$\)' "$TOP/mail/trailers")
}

# rewrite FROM TO: sets $tip to the commits FROM..TO of $tree, with the sender, if there is
# one, as their author, and the trailers in place.
rewrite()
{
	local commit subject as=as_sender

	! no_sender > /dev/null || as=
	tip=$1
	while read -r commit; do
		subject=$(git -C "$tree" show -s --format=%s "$commit")
		# What is not in mainline yet is not for stable yet.
		git -C "$tree" show -s --format=%B "$commit" |
			if [[ $BASE == "$(bases | tail -n 1)" ]]; then cat; else sed '/^Cc: stable@/d'; fi |
			git stripspace > "$work/body"
		# With a trailer of its own it is the last paragraph that is added to.
		[[ -n $(git interpret-trailers --parse "$work/body") ]] || echo >> "$work/body"
		{
			trailers "$subject"
			[[ -z $as ]] || echo "Signed-off-by: $LAB_NAME <$LAB_EMAIL>"
		} >> "$work/body"
		tip=$(GIT_AUTHOR_DATE=$(git -C "$tree" show -s --format=%aI "$commit") \
			$as git -C "$tree" commit-tree "$commit^{tree}" -p "$tip" -F "$work/body")
	done < <(git -C "$tree" rev-list --reverse "$1..$2")
}
