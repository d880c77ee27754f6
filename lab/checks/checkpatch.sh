# shellcheck shell=bash disable=SC2154,SC2034,SC2164
# SPDX-License-Identifier: GPL-2.0
#
# checkpatch, as many at a time as there are processors

# Not its business: sign-offs are added when the series is mailed, by who mails
# it; MAINTAINERS is updated by a patch of its own; there is no history to look the
# commits up in that messages name.
CHECKPATCH_IGNORE=MISSING_SIGN_OFF,NO_AUTHOR_SIGN_OFF,FILE_PATH_CHANGES,UNKNOWN_COMMIT_ID

run_checkpatch()
{
	local n=$1 commit=$2 log=$LOGS/checkpatch-$1.log stamp

	stamp=$(key run_checkpatch "$CHECKPATCH_IGNORE" "$scripts" "$commit")
	rm -f "$log" "$log.ok"
	if seen "$stamp"; then
		: > "$log.ok"
		return
	fi
	git -C "$SRC" format-patch -1 --stdout "$commit" > "$WORK/patch-$n"
	(cd "$SRC" && HOME=$WORK PATH=$WORK/bin:$PATH ./scripts/checkpatch.pl --strict --no-summary --show-types \
		--ignore "$CHECKPATCH_IGNORE" "$WORK/patch-$n") > "$log" 2>&1 &&
		! grep -Eq '^(ERROR|WARNING|CHECK)' "$log" || return 0
	remember "$stamp"
	: > "$log.ok"
}

check_checkpatch()
{
	local n=0 commit status

	checkout "$tip"
	# spdxcheck.py asks for "python", and for modules of Debian's python3.
	mkdir -p "$WORK/bin"
	ln -sf /usr/bin/python3 "$WORK/bin/python"
	scripts=$(git -C "$SRC" ls-tree "$tip" scripts/ LICENSES MAINTAINERS | sha256sum)
	for commit in "${commits[@]}"; do
		while (($(jobs -pr | wc -l) >= JOBS)); do
			wait -n || :
		done
		n=$((n + 1))
		run_checkpatch "$(number "$n")" "$commit" &
	done
	wait
	n=0
	for commit in "${commits[@]}"; do
		n=$((n + 1))
		status=1
		[[ ! -f $LOGS/checkpatch-$(number "$n").log.ok ]] || status=0
		report "$status" "checkpatch: $(number "$n") $(title "$commit")" "$LOGS/checkpatch-$(number "$n").log"
	done
}
