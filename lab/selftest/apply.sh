# shellcheck shell=bash disable=SC2154,SC2034,SC2164
# SPDX-License-Identifier: GPL-2.0
# Series that cannot be applied.
cp -a "$kernel" "$work/newer"
git -C "$work/newer" apply "$project/series/0.1/vfio-count-on.patch"
expect 'a kernel that has a patch already' fail \
	'vfio-count-on.patch is in this kernel already' env KERNEL_SRC="$work/newer" "$project/lab/compose.sh" 0.1
sed -i 's/^-two/-too/' "$project/series/0.1/vfio-count-on.patch"
expect 'a patch that does not apply is named, and its file' fail \
	'vfio-count-on.patch does not apply: drivers/vfio/vfio.c:1' on_kernel compose 0.1
echo 'none.patch' > "$project/series/0.1/order"
expect 'a patch that is not there' fail 'none.patch, which is not in' on_kernel compose 0.1
echo 'new none' > "$project/series/0.1/order"
expect 'a message that is not there' fail 'no linux/commits/none.msg' on_kernel compose 0.1
rm "$project/series/0.1/order"
expect 'a base with no series' fail 'order is missing' on_kernel compose 0.1
