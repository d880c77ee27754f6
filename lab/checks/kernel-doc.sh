# shellcheck shell=bash disable=SC2154,SC2034,SC2164
# SPDX-License-Identifier: GPL-2.0
#
# kernel-doc of the changed files
check_kernel_doc()
{
	local file which docs=() status=0

	: > "$WORK/doc.base"
	: > "$WORK/doc.tip"
	for file in "${changed[@]}"; do
		case $file in
		drivers/*.[ch]|include/*.h)
			docs+=("$file")
		esac
	done
	for which in base tip; do
		checkout "${!which}"
		for file in "${docs[@]}"; do
			[[ -f $SRC/$file ]] || continue
			(cd "$SRC" && ./scripts/kernel-doc -none "$file") >> "$WORK/doc.$which" 2>&1 || :
		done
	done
	added "$WORK/doc.base" "$WORK/doc.tip" > "$LOGS/kernel-doc.log"
	[[ ! -s $LOGS/kernel-doc.log ]] || status=1
	report "$status" "kernel-doc: ${#docs[@]} changed files, no new warning" "$LOGS/kernel-doc.log"
}
