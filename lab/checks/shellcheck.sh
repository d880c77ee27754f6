# shellcheck shell=bash disable=SC2154,SC2034,SC2164
# SPDX-License-Identifier: GPL-2.0
#
# What shellcheck says of the project's own scripts
needs_shellcheck="shellcheck shellcheck"

scripts()
{
	local file

	if git -C "$TOP" rev-parse --git-dir >/dev/null 2>&1; then
		git -C "$TOP" ls-files --cached --others --exclude-standard
	else
		(cd "$TOP" && find . -path ./build -prune -o -type f -print)
	fi | while read -r file; do
		[[ -f $TOP/$file ]] || continue
		if [[ $file == *.sh ]] ||
		   head -c 64 "$TOP/$file" | head -n 1 | tr -d '\0' | grep -Eq '^#!.*[/ ](ba|da)?sh( |$)'; then
			echo "$file"
		fi
	done | sort -u
}

check_shellcheck()
{
	local files status=0

	mapfile -t files < <(scripts)
	(cd "$TOP" && shellcheck -x -P SCRIPTDIR "${files[@]}") > "$LOGS/shellcheck.log" 2>&1 || status=1
	report "$status" "shellcheck: ${#files[@]} scripts" "$LOGS/shellcheck.log"
}
