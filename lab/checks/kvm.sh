# shellcheck shell=bash disable=SC2154,SC2034,SC2164
# SPDX-License-Identifier: GPL-2.0
#
# KVM of processors that nothing else here is built for, where the series changes it
run_kvm()
{
	configure && kmake W=1 "${others[@]}"
}

check_kvm()
{
	local arch status log

	for arch in riscv powerpc; do
		setup "kvm-$arch"
		mapfile -t others < <(printf '%s\n' "${others[@]}" | grep '^arch/' || :)
		((${#others[@]})) || continue
		command -v "${compiler##* }" > /dev/null ||
			die "tools are missing; run: apt-get install gcc-$(basename "${compiler##* }" -gcc)"
		rm -rf "$OBJ"
		compare "kvm $arch" run_kvm warnings "configure kmake"
		report "$status" "kvm: $arch, ${others[*]} with no new warning" "$log"
		rm -rf "$OBJ"
	done
}
