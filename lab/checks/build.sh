# shellcheck shell=bash disable=SC2154,SC2034,SC2164
# SPDX-License-Identifier: GPL-2.0
#
# drivers/vfio built patch by patch, and what the series changes elsewhere: x86-64, arm64,
# and if they are named few, cdev, nommu, allmod
needs_arm64="aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu"
needs_nommu="riscv64-linux-gnu-gcc gcc-riscv64-linux-gnu"

# setup ARCH: how make is called for it, and the config its builds have in common
setup()
{
	OBJ=$WORK/obj-$1
	make_args=(ARCH=x86_64)
	code=x86
	compiler=gcc
	defaults=tinyconfig
	vfio=m
	only_here=()
	between=
	case $1 in
	x86-64)
		symbols="64BIT SMP MODULES EVENTFD HIGH_RES_TIMERS PCI PCI_MSI ACPI EXPERT MMU_NOTIFIER IOMMU_SUPPORT INTEL_IOMMU
			AMD_IOMMU TRANSPARENT_HUGEPAGE MEMFD_CREATE SHMEM VFIO VFIO_PCI
			VFIO_PCI_VGA VFIO_PCI_IGD VFIO_NOIOMMU VFIO_MDEV PROC_FS SYSFS
			DEBUG_KERNEL PROVE_LOCKING $CHECK_X86_64"
		required="VFIO VFIO_PCI VFIO_PCI_IGD VFIO_MDEV VFIO_IOMMU_TYPE1 INTEL_IOMMU $CHECK_X86_64"
		;;
	arm64)
		make_args=(ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu-)
		code=arm64
		compiler=aarch64-linux-gnu-gcc
		symbols="SMP MODULES EVENTFD PCI PCI_MSI EXPERT OF EFI ACPI ARCH_NXP ARCH_LAYERSCAPE IOMMU_SUPPORT ARM_SMMU_V3 ARM_AMBA
			ARCH_VEXPRESS FSL_MC_BUS VFIO VFIO_PCI VFIO_PLATFORM VFIO_AMBA VFIO_FSL_MC
			VFIO_PLATFORM_CALXEDAXGMAC_RESET VFIO_PLATFORM_AMDXGBE_RESET $CHECK_ARM64"
		only_here=(drivers/vfio/{platform,fsl-mc,cdx,pci/nvgrace-gpu,pci/hisilicon})
		required="VFIO VFIO_PLATFORM VFIO_AMBA VFIO_FSL_MC VFIO_IOMMU_TYPE1 ARM_SMMU_V3 $CHECK_ARM64"
		;;
	few)
		symbols="64BIT MODULES EVENTFD PCI PCI_MSI=n IOMMU_SUPPORT VFIO VFIO_PCI"
		required="VFIO VFIO_PCI VFIO_IOMMU_TYPE1"
		vfio=y
		;;
	cdev)
		symbols="64BIT MODULES EVENTFD PCI IOMMU_SUPPORT IOMMUFD VFIO VFIO_DEVICE_CDEV VFIO_GROUP=n VFIO_PCI"
		required="VFIO VFIO_DEVICE_CDEV VFIO_PCI"
		;;
	nommu)
		make_args=(ARCH=riscv CROSS_COMPILE=riscv64-linux-gnu-)
		code=riscv
		compiler=riscv64-linux-gnu-gcc
		symbols="NONPORTABLE MMU=n 64BIT MODULES EVENTFD IOMMU_SUPPORT VFIO"
		required=VFIO
		;;
	kvm-riscv)
		make_args=(ARCH=riscv CROSS_COMPILE=riscv64-linux-gnu-)
		code=riscv
		compiler=riscv64-linux-gnu-gcc
		symbols="NONPORTABLE ARCH_RV64I 64BIT MMU SMP RISCV_SBI EVENTFD VIRTUALIZATION KVM"
		required=KVM
		;;
	kvm-powerpc)
		make_args=(ARCH=powerpc CROSS_COMPILE=powerpc-linux-gnu-)
		code=powerpc
		compiler=powerpc-linux-gnu-gcc
		symbols="PPC_85xx PPC_DISABLE_WERROR SMP=n EVENTFD VIRTUALIZATION KVM_E500V2"
		required=KVM_E500V2
		;;
	allmod)
		defaults=allmodconfig
		symbols=
		required="VFIO VFIO_PCI VFIO_IOMMU_TYPE1"
		;;
	esac
	# What the series changes outside of drivers/vfio is built as well, but on RISC-V,
	# where it is for an MMU.
	others=()
	[[ $1 == nommu ]] ||
		mapfile -t others < <(printf '%s\n' "${changed[@]}" | sed -n "s,^\(\(arch/$code\|mm\)/.*\)\.c\$,\1.o,p")
	use_ccache
	if [[ $CC == ccache* ]]; then
		compiler="ccache $compiler"
	fi
}

kmake()
{
	make -j"$JOBS" -C "$SRC" O="$OBJ" "${make_args[@]}" CC="$compiler" LOCALVERSION= \
		KBUILD_BUILD_TIMESTAMP='Thu Jan  1 00:00:00 UTC 1970' \
		KBUILD_BUILD_USER=lab KBUILD_BUILD_HOST=lab "$@"
}

# configure [SYMBOL...]: the symbols above on top of $defaults, those of vfio as $vfio
configure()
{
	local symbol

	mkdir -p "$OBJ"
	kmake "$defaults" || return 1
	for symbol in $symbols "$@"; do
		[[ $symbol == *=n ]] || symbol="$symbol=y"
		echo "CONFIG_$symbol"
	done > "$OBJ/check.config"
	# Whatever is a tristate of it
	sed -Ei 's/^(CONFIG_(VFIO|VFIO_PCI|VFIO_PLATFORM|VFIO_AMBA|VFIO_FSL_MC|VFIO_MDEV|VFIO_MDEV_DEVICE)|CONFIG_VFIO_PLATFORM_.*)=y/\1='"$vfio/" \
		"$OBJ/check.config"
	cat "$OBJ/check.config" >> "$OBJ/.config"
	kmake olddefconfig || return 1
	for symbol in $required "$@"; do
		if ! grep -Eq "^CONFIG_$symbol=[ym]" "$OBJ/.config"; then
			echo "error: CONFIG_$symbol cannot be enabled"
			return 1
		fi
	done
	for symbol in $symbols; do
		if [[ $symbol == *=n ]] && grep -q "^CONFIG_${symbol%=n}=" "$OBJ/.config"; then
			echo "error: CONFIG_${symbol%=n} cannot be disabled"
			return 1
		fi
	done
}

prepare()
{
	configure "$@" && kmake modules_prepare
}

# Every symbol a vfio module wants of another one is exported there.
check_symbols()
{
	local modules exported wanted missing

	mapfile -t modules < <(find "$OBJ/drivers/vfio" -name modules.order -exec cat {} + |
		sed 's/^kernel\///; s/\.k\?o$/.o/' | sort -u)
	((${#modules[@]})) || { echo "error: no modules built"; return 1; }
	# What an export leaves in an object is called differently from 6.5 on.
	exported=$(cd "$OBJ" && nm "${modules[@]}" 2>/dev/null |
		sed -n 's/.* __\(ksymtab\|export_symbol\)_\(vfio.*\|mdev.*\)$/\2/p' | sort -u)
	wanted=$(cd "$OBJ" && nm -u "${modules[@]}" 2>/dev/null |
		sed -n 's/^ *U \(vfio.*\|mdev.*\)$/\1/p' | sort -u)
	missing=$(comm -13 <(echo "$exported") <(echo "$wanted"))
	if [[ -n $missing ]]; then
		echo "error: not exported by any vfio module: ${missing//$'\n'/ }"
		return 1
	fi
}

build()
{
	local makefile dir dirs=()

	# Between the base and the tip, what x86-64 has is built there.
	for dir in ${only_here[@]+"${only_here[@]}"}; do
		[[ ! -d $SRC/$dir || -z $between ]] || dirs+=("$dir/")
	done
	if ((${#dirs[@]})); then
		kmake W=1 KBUILD_MODULES=1 "${dirs[@]}" ${others[@]+"${others[@]}"}
		return
	fi
	kmake W=1 KBUILD_MODULES=1 drivers/vfio/ ${others[@]+"${others[@]}"} || return 1
	[[ $vfio == y ]] || check_symbols || return 1
	# Modules among the selftests; without a vmlinux their symbols are unknown.
	[[ -d $SRC/$SELFTESTS && $OBJ == *x86* ]] || return 0
	{ grep -rl --include=Makefile '^obj-m' "$SRC/$SELFTESTS" || :; } | while read -r makefile; do
		rm -rf "$WORK/module"
		cp -r "$(dirname "$makefile")" "$WORK/module" || return 1
		kmake W=1 KBUILD_MODPOST_WARN=1 M="$WORK/module" modules || return 1
	done
}

# The compiler's warnings.  What it says of a header counts once, however many files include it
warnings()
{
	grep -E ': (warning|error): |^error: ' "$1" | awk '!/^[^ ]*\/include\// || !seen[$0]++' || :
}

build_functions="configure prepare kmake build check_symbols warnings added normalize"

# build_base ARCH: its warnings are the measure for everything that follows
build_base()
{
	local arch=$1 stamp

	BASE_LOG=$WORK/base-$arch.log
	stamp=$(key "$build_functions" "base $arch" "$(git -C "$SRC" rev-parse "$base^{tree}")")
	checkout "$base"
	if [[ -f $BASE_LOG && -f $OBJ/stamp && $(< "$OBJ/stamp") == "$stamp" ]]; then
		progress "checks, $arch: preparing the base again" "$LOGS/check-prepare-$arch.log" prepare ||
			die "the base cannot be prepared: $(reason "$LOGS/check-prepare-$arch.log")"
		return
	fi
	rm -rf "$OBJ"
	progress "checks, $arch: preparing the base" "$LOGS/check-prepare-$arch.log" prepare ||
		die "the base cannot be prepared: $(reason "$LOGS/check-prepare-$arch.log")"
	progress "checks, $arch: building the base" "$BASE_LOG.new" build ||
		die "the base does not build: $(reason "$BASE_LOG.new")"
	mv "$BASE_LOG.new" "$BASE_LOG"
	echo "$stamp" > "$OBJ/stamp"
}

# configuration COMMIT [SYMBOL...]: what tells its configuration from another one
configuration()
{
	git -C "$SRC" ls-tree -r "$1" drivers/vfio | grep Kconfig
	echo "${@:2}"
}

# build_commit ARCH COMMIT DESCRIPTION LOG [SYMBOL...]
build_commit()
{
	local arch=$1 commit=$2 what=$3 log=$4 stamp config found status=0

	shift 4
	stamp=$(key "$build_functions" "build $arch $*" "$(git -C "$SRC" rev-parse "$base^{tree}" "$commit^{tree}")")
	if seen "$stamp"; then
		report 0 "$what"
		return
	fi
	if [[ -z $configured ]]; then
		between='' build_base "$arch"
		configured=$(configuration "$base")
		# While its objects are there
		! wanted sparse || between='' find_in base "sparse $arch" run_sparse warnings "$sparse_needs" || :
	fi
	checkout "$commit"
	# A patch may add a symbol.  All other preparation is part of the build.
	config=$(configuration "$commit" "$@")
	if [[ $config != "$configured" ]] &&
	   ! progress "checks, $arch: configuring $part" \
		"$log" prepare "$@"; then
		status=1
	elif ! progress "checks, $arch: building $part, $(git -C "$SRC" show -s --format=%f "$commit")" \
		"$log" build; then
		status=1
	else
		added <(warnings "$BASE_LOG") <(warnings "$log") > "$log.new"
		if [[ -s $log.new ]]; then
			status=1
		fi
		rm -f "$log.new"
	fi
	if ((status)); then
		configured=
		{
			grep -E ':[0-9]+: error: |^error: |\*\*\* ' "$log" || :
			added <(warnings "$BASE_LOG") <(warnings "$log")
		} | sort -u > "$log.why"
		[[ -s $log.why ]] || tail -n 20 "$log" > "$log.why"
		# Objects of a build that failed would hide its warnings from the next.
		rm -rf "$OBJ/drivers/vfio"
		report 1 "$what" "$log.why"
		rm -f "$log.why"
	else
		configured=$config
		remember "$stamp"
		report 0 "$what"
	fi
}

# Whether the patch has anything to do with code that a build could break
touches()
{
	git -C "$SRC" diff-tree -r --no-commit-id --name-only "$1" | grep -Eq "$2"
}

new_symbols()
{
	git -C "$SRC" diff "$base" "$tip" -- drivers/vfio |
		sed -n 's/^+\(menu\)\?config[ \t]\+\(VFIO[A-Z0-9_]*\).*/\2/p'
}

# check_builds ARCH: of each patch that has to do with it
check_builds()
{
	local arch=$1 paths commit symbol n=0 todo=()

	setup "$arch"
	configured=
	case $arch in
	x86-64)
		paths='^(drivers|include|mm|fs|kernel|arch|lib|scripts|tools/testing/selftests/vfio/(mdev_pin|test_modules|fault_gate))/'
		;;
	arm64)
		paths='^(drivers/vfio/(platform|fsl-mc|cdx|pci/nvgrace-gpu|pci/hisilicon)/|drivers/vfio/(vfio\.c|Kconfig|Makefile)|include/|arch/arm64/)'
		;;
	*)
		paths='^(drivers|include|mm)/'
		;;
	esac
	for commit in "${commits[@]}"; do
		n=$((n + 1))
		if [[ $commit == "$tip" ]] || touches "$commit" "$paths"; then
			todo+=("$n $commit")
		fi
	done
	of=0
	for commit in "${todo[@]}"; do
		read -r n commit <<< "$commit"
		of=$((of + 1))
		part="$of of ${#todo[@]}"
		between=
		[[ $commit == "$tip" ]] || between=1
		build_commit "$arch" "$commit" "build $arch: $(number "$n") $(title "$commit")" \
			"$LOGS/build-$arch-$(number "$n").log"
	done
	if wanted sparse && [[ $arch == x86-64 || $arch == arm64 ]]; then
		sparse_of "$arch"
	fi
	[[ " $ODD " != *" $arch "* ]] || return 0
	for symbol in $(new_symbols); do
		part="with CONFIG_$symbol"
		build_commit "$arch" "$tip" "build $arch: all, with CONFIG_$symbol" \
			"$LOGS/build-$arch-$symbol.log" "$symbol"
	done
}
