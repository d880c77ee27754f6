# shellcheck shell=bash disable=SC2154,SC2034,SC2164
# SPDX-License-Identifier: GPL-2.0
#
# KVM of processors that nothing else here is built for, where the series changes it

setup_kvm()
{
	setup x86-64
	OBJ=$WORK/obj-kvm-$1
	vfio=m
	code=$1
	case $1 in
	riscv)
		make_args=(ARCH=riscv CROSS_COMPILE=riscv64-linux-gnu-)
		symbols="NONPORTABLE ARCH_RV64I 64BIT MMU SMP RISCV_SBI EVENTFD VIRTUALIZATION KVM"
		required=KVM
		;;
	powerpc)
		make_args=(ARCH=powerpc CROSS_COMPILE=powerpc-linux-gnu-)
		symbols="PPC_85xx PPC_DISABLE_WERROR SMP=n EVENTFD VIRTUALIZATION KVM_E500V2"
		required=KVM_E500V2
		;;
	esac
	mapfile -t others < <(printf '%s\n' "${changed[@]}" | sed -n "s,^\(arch/$code/.*\)\.c\$,\1.o,p")
	compiler=${make_args[1]#*=}gcc
	((!${#others[@]})) || command -v "$compiler" > /dev/null ||
		die "tools are missing; run: apt-get install gcc-${compiler%-gcc}"
	[[ $CC != ccache* ]] || compiler="ccache $compiler"
}

run_kvm()
{
	configure && kmake W=1 "${others[@]}"
}

check_kvm()
{
	local arch status log

	for arch in riscv powerpc; do
		setup_kvm "$arch"
		((${#others[@]})) || continue
		rm -rf "$OBJ"
		compare "kvm $arch" run_kvm warnings "configure kmake"
		result "$status" "kvm: $arch, ${others[*]} with no new warning" "$log"
		rm -rf "$OBJ"
	done
}
