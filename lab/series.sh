#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: series.sh BASE
#
# Write the whole series, the shared files among it, to build/BASE/series/ as one
# folder for git am in anybody's kernel tree, or for quilt with the file "series": in the name
# of whom git config knows, and with their sign-off.

. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/sender.sh"
load_base "${1:-}"
work=''

tree=$("$TOP/lab/compose.sh" "$BASE")
lock "$OUT/.lock-tree"
scratch work "$OUT"
if why=$(no_sender); then
	say "who sends this? $why; so far the patches have no author that can be answered, and no sign-off"
fi
rewrite "$(git -C "$tree" rev-parse 'base^{commit}')" HEAD
git -C "$tree" format-patch -q --zero-commit --no-signature --no-thread --abbrev=12 \
	--no-encode-email-headers --no-attach -o "$work/series" "base..$tip"
(cd "$work/series" && ls) > "$work/list"
mv "$work/list" "$work/series/series"
replace_folder "$work/series" "$OUT/series"
say "$(find "$OUT/series" -name '*.patch' | wc -l) patches; in a kernel tree: git am $OUT/series/*.patch"
