#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: clean.sh
#
# Remove what this checkout has built.  A composed tree with edits that were not
# written back is kept, and all the rest with it, unless FORCE=1.

. "$(dirname "$0")/lib.sh"

for tree in "$BUILD"/*/tree; do
	[[ -f $tree/.git/lab/commit && -z ${FORCE:-} ]] || continue
	if edited "$tree"; then
		die "$tree has edits; make writeback saves them, FORCE=1 drops them"
	fi
done
rm -rf "$BUILD"
