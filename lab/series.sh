#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: series.sh BASE
#
# Write the whole series, the shared files among it, to build/BASE/series/ as one
# folder for git am in anybody's kernel tree.

. "$(dirname "$0")/lib.sh"
load_base "${1:-}"
work=''

tree=$("$TOP/lab/compose.sh" "$BASE")
lock "$OUT/.lock-tree"
scratch work "$OUT"
git -C "$tree" -c diff.noprefix=false -c diff.mnemonicPrefix=false -c format.signOff=false \
	format-patch -q --zero-commit --no-signature --no-thread --abbrev=12 \
	--no-encode-email-headers --no-attach -o "$work/series" base..HEAD
rm -rf "$OUT/series"
mv "$work/series" "$OUT/series"
say "$(find "$OUT/series" -name '*.patch' | wc -l) patches; in a kernel tree: git am $OUT/series/*.patch"
