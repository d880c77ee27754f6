# shellcheck shell=bash disable=SC2154,SC2034,SC2164
# SPDX-License-Identifier: GPL-2.0
#
# sparse, of drivers/vfio
needs_sparse="sparse sparse"
sparse_needs="prepare configure kmake"

# Where objects have just been built there is little to build for it.
run_sparse()
{
	[[ -n $configured ]] || prepare || return 1
	kmake C=2 CHECK=sparse KBUILD_MODULES=1 drivers/vfio/
}

# sparse_of ARCH: with its objects, as the builds have left them
sparse_of()
{
	local status log

	compare "sparse $1" run_sparse warnings "$sparse_needs"
	report "$status" "sparse: $1, no new warning in drivers/vfio" "$log"
}

check_sparse()
{
	# Where all is built that has been done
	! wanted x86-64 || return 0
	setup x86-64
	configured=
	sparse_of x86-64
}
