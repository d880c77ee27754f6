# shellcheck shell=bash disable=SC2154,SC2034,SC2164
# SPDX-License-Identifier: GPL-2.0
#
# The programs among the selftests

# The programs among the selftests, against the headers of the tree they are in
build_selftests()
{
	rm -rf "$WORK/headers" "$WORK/selftests"
	mkdir -p "$WORK/selftests"
	kmake headers_install INSTALL_HDR_PATH="$WORK/headers" || return 1
	make -C "$SRC/$SELFTESTS" OUTPUT="$WORK/selftests" CC="$compiler" \
		KHDR_INCLUDES="-isystem $WORK/headers/include" all || return 1
	! grep -q 'warning: ' "$1"
}

check_selftests()
{
	local n=0 commit stamp log status

	setup x86-64
	for commit in "${commits[@]}"; do
		n=$((n + 1))
		touches "$commit" "^$SELFTESTS/" || continue
		# The Makefile comes with the last of them: before, nothing is built.
		git -C "$SRC" cat-file -e "$commit:$SELFTESTS/Makefile" 2>/dev/null || continue
		stamp=$(key "build_selftests kmake" selftests \
			"$(git -C "$SRC" rev-parse "$commit:tools/testing/selftests" "$commit:include/uapi")")
		log=$LOGS/build-selftests-$(number "$n").log
		status=0
		if ! seen "$stamp"; then
			checkout "$commit"
			if ! progress "checks, selftests: building $(number "$n")" "$log" build_selftests "$log"; then
				status=1
				warnings "$log" > "$log.why"
			fi
			((status)) || remember "$stamp"
		fi
		report "$status" "build selftests: $(number "$n") $(title "$commit")" "$log.why"
		rm -f "$log.why"
	done
	git -C "$SRC" clean -qfdx
}
