# shellcheck shell=bash disable=SC2154,SC2034,SC2164
# SPDX-License-Identifier: GPL-2.0
#
# Checks that passed are not run again, until something changes that they depend on.

# Tools that do nothing, and a make that says that it was called
checked=$work/checked
mkdir -p "$work/tools"
for tool in sparse gcc nm flex bison; do
	printf '#!/bin/sh\necho %s 1\n' $tool > "$work/tools/$tool"
done
cat > "$work/tools/make" <<-EOF
	#!/bin/bash
	echo called >> "$work/made"
	for arg; do [[ \$arg != O=* ]] || O=\${arg#O=}; done
	[[ \$* != *olddefconfig* ]] ||
		{ cat "\$O/check.config"; printf 'CONFIG_%s=m\n' VFIO_PCI_IGD VFIO_MDEV VFIO_IOMMU_TYPE1; } > "\$O/.config"
EOF
chmod +x "$work/tools"/*
sparse()
{
	rm -f "$work/made"
	CHECK=sparse KERNEL_SRC=$kernel PATH=$work/tools:$PATH lab check 0.1 && { [[ ! -f $work/made ]] || echo made; }
}
printf "CHECK_X86_64='VFIO_PCI'\n" >> "$project/series/0.1/base.conf"
expect 'a check runs' 0 '^made$' sparse
expect 'and is not run again' 0 '^1 passed, 0 failed, 0 skipped$' sparse
expect 'really' 1 '^$' bash -c "grep -x made '$work/said' || { echo; exit 1; }"
sed -i '2i # A comment more' "$project/lab/check.sh"
sparse > "$work/said" 2>&1 || :
expect 'nor for a comment' 1 '^$' bash -c "grep -x made '$work/said' || { echo; exit 1; }"
sed -i "s/^CHECK_X86_64=.*/CHECK_X86_64='VFIO_PCI VFIO_MDEV'/" "$project/series/0.1/base.conf"
expect 'but for what else is to be built' 0 '^made$' sparse
sed -i 's/C=2 CHECK=sparse/C=2 CHECK=sparse V=1/' "$project"/lab/checks/sparse.sh
expect 'and for how' 0 '^made$' sparse
rm -rf "$checked"

# Reverts that are for another base
mkdir -p "$project/lab/reverts"
printf 'count | mmap | nothing counts\n' > "$project/lab/reverts.list"
cat > "$project/lab/reverts/count.patch" <<-'EOF'
	--- a/drivers/vfio/vfio.c
	+++ b/drivers/vfio/vfio.c
	@@ -1,3 +1,3 @@
	 one
	-zwei
	+two
	 three
EOF
cp "$project/lab/packages" "$work/packages"
: > "$project/lab/packages"
expect 'make proof says at once that it cannot be had' fail '1 of 1 reverts do not apply to 0.1 yet' on_kernel proof 0.1
cp "$work/packages" "$project/lab/packages"
