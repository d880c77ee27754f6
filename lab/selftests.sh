#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: selftests.sh BASE
#
# Build the series' selftests against the patched tree's headers, statically, into
# build/BASE/selftests, and print that path.

. "$(dirname "$0")/lib.sh"
load_base "${1:-}"

compile()
{
	local headers=$dir/usr

	kernel_make "$tree" headers_install INSTALL_HDR_PATH="$headers" || return 1
	make -C "$tree/$SELFTESTS" OUTPUT="$dir" CC="$CC" \
		KHDR_INCLUDES="-isystem $headers/include" all || return 1
	touch "$dir/.complete"
}

tree=$("$TOP/lab/compose.sh" "$BASE")
dir=$OUT/selftests
[[ -f $tree/$SELFTESTS/Makefile ]] ||
	die "series/$BASE has no selftests: its order lacks the 'new' lines that add $SELFTESTS"
use_ccache
lock "$OUT/.lock-selftests"
mkdir -p "$dir"
if [[ -f $dir/.complete && -z $(find "$tree/$SELFTESTS" "$tree/include/uapi/linux/vfio.h" \
	-newer "$dir/.complete" -print -quit) ]]; then
	echo "$dir"
	exit 0
fi
rm -f "$dir/.complete"
progress "building the selftests" "$LOGS/selftests.log" compile || {
	reason "$LOGS/selftests.log" >&2
	die "the selftests do not build; see $LOGS/selftests.log"
}
echo "$dir"
