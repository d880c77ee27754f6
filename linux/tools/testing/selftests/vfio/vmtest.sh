#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Boot a kernel image under QEMU, with an IOMMU and devices behind it to assign,
# and run one program in the guest as root.  Needs QEMU, a static busybox, cpio
# and gzip; no disk image and no network.

set -u
set -o pipefail

readonly SCRIPT_NAME=${0##*/}

readonly EXIT_TIMEOUT=124
readonly EXIT_SPLAT=125
readonly EXIT_QEMU=126
readonly EXIT_USAGE=127

# Emulation may get stuck before the guest has begun.
readonly BOOT_SECONDS=300

# What a healthy guest never prints on its console.
readonly SPLAT_PATTERN='WARNING:|BUG:|KASAN:|UBSAN:|kmemleak:|Oops[: ]'\
'|INFO: possible recursive locking|INFO: possible circular locking'\
'|possible circular locking dependency|possible recursive locking detected'\
'|possible irq lock inversion|suspicious RCU usage|DEBUG_LOCKS_WARN'\
'|general protection|Kernel panic|unable to handle|refcount_t:'\
'|scheduling while atomic|sleeping function called|blocked for more than'\
'|self-detected stall|detected stalls|soft lockup|Bad page|bad page'\
'|list_add corruption|list_del corruption|Bad rss-counter'

# Lines that match the pattern on every boot and mean nothing.
readonly NOT_SPLAT='Spectre V2 : WARNING: Unprivileged eBPF'

cpus=2
memory=2048
timeout=300
qemu="qemu-system-x86_64"
kvm=0
icount=0
defaults=1
log=
devices=()
objects=()
files=()
bind=
append=${VMTEST_APPEND:-}
tmp=
child=

usage()
{
	cat <<-EOF
	Usage: $SCRIPT_NAME [OPTION]... KERNEL -- PROGRAM [ARG]...

	Boot KERNEL under QEMU, and run PROGRAM of the host in the guest.  KERNEL is an
	image, a kernel tree or a build directory that has one, or a directory with a
	bzImage, and with modules that are loaded in the order that modules/order gives.

	  -c CPUS     virtual CPUs (default $cpus)
	  -m MIB      guest memory (default $memory)
	  -t SECONDS  give up after this time (default $timeout)
	  -d DEVICE   one more QEMU device, as for its -device option, behind a root
	              port of its own unless DEVICE names a bus or is an nvme-subsys,
	              which is on none; may be repeated
	  -o OBJECT   one more QEMU object, as for its -object option, for a device that
	              needs one; may be repeated
	  -n          none of the default devices
	  -f FILE     copy FILE into the guest too, into the directory PROGRAM runs
	              in; may be repeated
	  -b ID       bind the first PCI device with this VENDOR:DEVICE, as lspci -n shows
	              it, to vfio-pci, and give PROGRAM its address as the last ARG
	  -a TEXT     append TEXT to the kernel's parameters
	  -q QEMU     the QEMU to run (default $qemu)
	  -l LOGFILE  keep the guest's console here (default: shown on failure)
	  -k          use KVM instead of emulating the CPU
	  -i          have the guest's clocks count its instructions, one a nanosecond,
	              and leap over the time in which it has none to execute
	  -h          this text

	PROGRAM and the files must be static or scripts; a busybox shell is there.
	VFIO_SELFTESTS_BDF tells PROGRAM of all PCI devices of the guest: it may have them.
	The environment may append kernel parameters too: VMTEST_APPEND.

	Exit status: PROGRAM's own (at most 123), or
	  $EXIT_TIMEOUT  the time was up
	  $EXIT_SPLAT  the guest printed a warning, an oops or a panic
	  $EXIT_QEMU  QEMU did not start, ended before PROGRAM did, or did not boot KERNEL
	       within $BOOT_SECONDS seconds
	  $EXIT_USAGE  bad usage, a missing tool, no KERNEL or an incomplete one
	EOF
}

die()
{
	echo "$SCRIPT_NAME: $1" >&2
	exit "${2:-$EXIT_USAGE}"
}

# shellcheck disable=SC2317	# called by a trap
cleanup()
{
	trap - EXIT INT TERM HUP
	if [[ -n $child ]]; then
		kill "$child" 2>/dev/null
		wait "$child" 2>/dev/null
	fi
	if [[ -n $tmp ]]; then
		rm -rf "$tmp"
	fi
}

is_number()
{
	[[ $1 =~ ^[1-9][0-9]*$ ]]
}

# Quote the arguments for the guest's shell, which is not bash.
quote()
{
	local arg

	for arg in "$@"; do
		printf " '%s'" "${arg//\'/\'\\\'\'}"
	done
}

find_busybox()
{
	local path

	for path in "${BUSYBOX:-}" /bin/busybox /usr/bin/busybox; do
		if [[ -x $path ]] && ! ldd "$path" >/dev/null 2>&1; then
			echo "$path"
			return 0
		fi
	done
	return 1
}

copy_in()
{
	local file=$1 name=${1##*/}

	[[ -f $file && -r $file ]] || die "$file: no such file to copy into the guest"
	[[ ! -e $tmp/root/t/$name ]] || die "$name: two files of that name for the guest"
	cp -L "$file" "$tmp/root/t/$name" ||
		die "cannot fill $tmp: is the disk full?" $EXIT_QEMU
	chmod 755 "$tmp/root/t/$name"
}

make_initramfs()
{
	local busybox=$1 root=$tmp/root file module

	mkdir -p "$root"/{bin,dev,etc,proc,root,sys,tmp,t,modules} ||
		die "cannot fill $tmp: is the disk full?" $EXIT_QEMU
	: > "$root/modules/order"
	cp -L "$busybox" "$root/bin/busybox" ||
		die "cannot fill $tmp: is the disk full?" $EXIT_QEMU
	echo 'root:x:0:0:root:/root:/bin/sh' > "$root/etc/passwd"

	while read -r module; do
		cp "$build/modules/$module" "$root/modules/" ||
			die "$build/modules/$module: cannot be copied" $EXIT_QEMU
		echo "$module" >> "$root/modules/order"
	done < "$order"

	copy_in "$program"
	for file in ${files[@]+"${files[@]}"}; do
		copy_in "$file"
	done

	cat > "$root/init" <<-EOF
	#!/bin/busybox sh
	export PATH=/bin:/t HOME=/root TERM=dumb
	/bin/busybox --install -s /bin
	mount -t proc none /proc
	mount -t sysfs none /sys
	mount -t devtmpfs none /dev
	echo "vmtest: booted" > /dev/kmsg
	mkdir -p /dev/shm /dev/hugepages
	mount -t tmpfs none /dev/shm
	mount -t tmpfs none /tmp
	mount -t hugetlbfs none /dev/hugepages 2>/dev/null
	mount -t debugfs none /sys/kernel/debug 2>/dev/null
	mount -t tracefs none /sys/kernel/tracing 2>/dev/null
	ulimit -c 0
	ulimit -l unlimited
	while read -r m; do
		insmod "/modules/\$m" && continue
		echo "vmtest: status $EXIT_QEMU" > /dev/kmsg
		poweroff -f
	done < /modules/order
	exec 3<> /dev/ttyS1
	stty raw -echo 115200 <&3
	cd /t
	# VT-d maps 16 MiB for an ISA bridge and its group, page by page.  Where one
	# file has the tables of all devices, each look at it would list them.  5.10
	# must not empty a group, so the bridge itself stays there.
	for device in /sys/bus/pci/devices/*.0; do
		[ -e /sys/kernel/debug/iommu/intel/domain_translation_struct ] || break
		read -r class < "\$device/class"
		[ "\$class" = 0x060100 ] || continue
		for function in "\${device%.0}".[1-7]; do
			echo 1 > "\$function/remove"
		done
		case "\$(uname -r)" in 5.*) ;; *) echo 1 > "\$device/remove" ;; esac
		break
	done
	for device in /sys/bus/pci/devices/*; do
		[ -n "$bind" ] || break
		read -r vendor < "\$device/vendor"
		read -r id < "\$device/device"
		[ "\$vendor:\$id" = "0x${bind%%:*}:0x${bind##*:}" ] || continue
		address=\${device##*/}
		echo vfio-pci > "\$device/driver_override"
		echo "\$address" > /sys/bus/pci/drivers_probe
		break
	done
	export VFIO_SELFTESTS_BDF="\$(cd /sys/bus/pci/devices && echo *)"
	set -- $(quote "./${program##*/}" ${args[@]+"${args[@]}"}) \$address
	setsid "\$@" < /dev/null >&3 2>&1 3>&-
	status=\$?
	echo "vmtest: status \$status" > /dev/kmsg
	stty -F /dev/ttyS1 sane 2>/dev/null
	poweroff -f
	EOF
	chmod 755 "$root/init"

	(cd "$root" && find . -print0 | cpio --quiet -0 -o -H newc -R 0:0 | gzip -1) \
		> "$tmp/initramfs" || die "cannot write the initramfs: is the disk full?" $EXIT_QEMU
}

# Every device sits behind a root port of its own: a slot that can be powered
# off, and an IOMMU group with nothing else in it.
port=0
add_device()
{
	if [[ $1 =~ (^|,)bus=|^nvme-subsys, ]]; then
		qemu_args+=(-device "$1")
		return
	fi

	port=$((port + 1))
	qemu_args+=(-device "pcie-root-port,id=rp$port,bus=pcie.0,chassis=$port,slot=$port"
		    -device "$1,bus=rp$port")
}

# Devices behind a root port are reset by resetting its bus, which takes a second
# or two.  Those on the root bus have no reset, and the network card a quick one.
add_default_devices()
{
	add_device "edu,dma_mask=0xffffffffffffffff"
	add_device "edu,dma_mask=0xffffffffffffffff"
	add_device "edu,dma_mask=0xffffffffffffffff"

	qemu_args+=(-object "memory-backend-ram,id=shm1,share=on,size=16M"
		    -object "memory-backend-ram,id=shm2,share=on,size=1G")
	add_device "ivshmem-plain,memdev=shm1,master=on"
	add_device "ivshmem-plain,memdev=shm2,master=on"
	add_device "pci-testdev,membar=2M"
	add_device "e1000e,romfile="

	add_device "edu,dma_mask=0xffffffffffffffff,bus=pcie.0,addr=0x10"
	add_device "bochs-display,vgamem=16M,bus=pcie.0,addr=0x11"
	add_device "bochs-display,vgamem=16M,bus=pcie.0,addr=0x12"
}

show_log()
{
	echo "$SCRIPT_NAME: $1" >&2
	if [[ -n $keep_log ]]; then
		echo "$SCRIPT_NAME: the guest's console is in $log" >&2
	fi
}

while getopts ':a:c:m:t:d:o:f:b:q:l:kinh' opt; do
	case $opt in
	c) cpus=$OPTARG ;;
	m) memory=$OPTARG ;;
	t) timeout=$OPTARG ;;
	d) devices+=("$OPTARG") ;;
	o) objects+=("$OPTARG") ;;
	f) files+=("$OPTARG") ;;
	b) bind=$OPTARG ;;
	a) append+=" $OPTARG" ;;
	q) qemu=$OPTARG ;;
	l) log=$OPTARG ;;
	k) kvm=1 ;;
	i) icount=1 ;;
	n) defaults=0 ;;
	h) usage; exit 0 ;;
	:) die "option -$OPTARG needs a value (-h for help)" ;;
	*) die "unknown option -$OPTARG (-h for help)" ;;
	esac
done
shift $((OPTIND - 1))

[[ $# -ge 3 && $2 == -- ]] || die "expected KERNEL -- PROGRAM [ARG]... (-h for help)"
build=$1
program=$3
shift 3
args=("$@")

for value in "$cpus" "$memory" "$timeout"; do
	is_number "$value" || die "$value: not a positive number"
done
[[ -z $bind || $bind =~ ^[0-9a-f]{4}:[0-9a-f]{4}$ ]] || die "$bind: not VENDOR:DEVICE"
order=/dev/null
if [[ -f $build ]]; then
	image=$build
elif [[ -f $build/arch/x86/boot/bzImage ]]; then
	image=$build/arch/x86/boot/bzImage
else
	image=$build/bzImage
	[[ ! -e $build/modules ]] || order=$build/modules/order
fi
[[ -s $image ]] || die "$build: no bzImage here; build the kernel first"
[[ -r $order ]] || die "$order: missing; build the kernel first"
while read -r module; do
	[[ -s $build/modules/$module ]] || die "$build/modules/$module: missing"
done < "$order"
[[ -f $program ]] || die "$program: no such program"
for tool in "$qemu" cpio gzip timeout; do
	command -v "$tool" >/dev/null || die "$tool: not installed"
done
busybox=$(find_busybox) || die "no static busybox (Debian: busybox-static; or set BUSYBOX)"
if ((kvm)); then
	[[ -w /dev/kvm ]] || die "/dev/kvm: not there or not writable, and -k asks for it"
	((!icount)) || die "-i needs an emulated CPU, and -k asks for another"
fi

cmdline="console=ttyS0,115200 printk.devkmsg=on loglevel=7 panic=-1 oops=panic"
cmdline+=" hung_task_panic=1 softlockup_panic=1"
# The guest's time goes on while a busy host runs something else.
cmdline+=" watchdog_thresh=30 rcupdate.rcu_cpu_stall_timeout=60 workqueue.watchdog_thresh=60"
cmdline+=" intel_iommu=on mitigations=off"
# A busy host delays an emulated timer beyond what the kernel's test of it allows.
cmdline+=" no_timer_check $append"

trap cleanup EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

tmp=$(mktemp -d "${TMPDIR:-/tmp}/vmtest.XXXXXX") || die "no temporary directory" $EXIT_QEMU
keep_log=$log
log=${log:-$tmp/console.log}
: > "$log" || die "$log: cannot be written" $EXIT_QEMU
make_initramfs "$busybox"

# Slots are to be powered by the root ports (pciehp), not through ACPI.
qemu_args=(-nodefaults -no-user-config -display none -no-reboot
	   -global "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"
	   -smp "$cpus" -m "$memory"
	   -kernel "$image" -initrd "$tmp/initramfs")
if ((kvm)); then
	qemu_args+=(-machine "q35,kernel-irqchip=split" -accel kvm -cpu host)
else
	# While the kernel looks at the features of its CPU, KASAN takes 5-level
	# addresses for wild ones; an interrupt then is a splat.
	qemu_args+=(-machine q35 -accel "tcg,thread=single" -cpu "max,la57=off")
fi
if ((icount)); then
	qemu_args+=(-icount "shift=0,sleep=off" -rtc "base=2020-01-01,clock=vm")
fi
qemu_args+=(-append "$cmdline"
	    -device "intel-iommu,intremap=on,aw-bits=48"
	    -serial "file:$log"
	    -chardev "stdio,id=program,signal=off" -serial chardev:program)
if ((defaults)); then
	add_default_devices
fi
for object in ${objects[@]+"${objects[@]}"}; do
	qemu_args+=(-object "$object")
done
for device in ${devices[@]+"${devices[@]}"}; do
	add_device "$device"
done

watch_boot()
{
	local second

	for ((second = 0; second < BOOT_SECONDS; second++)); do
		sleep 1
		kill -0 "$child" 2>/dev/null || return
		! grep -aq 'vmtest: booted' "$log" 2>/dev/null || return
	done
	: > "$tmp/stuck"
	kill "$child"
}

timeout -k 10 "$timeout" "$qemu" "${qemu_args[@]}" < /dev/null 2> "$tmp/qemu.err" &
child=$!
watch_boot &
wait "$child"
qemu_status=$?
child=

status=$(tr -d '\r' < "$log" | sed -n 's/^.*vmtest: status \([0-9][0-9]*\)$/\1/p' | tail -n 1)
splat=$(tr -d '\r' < "$log" | grep -nE "$SPLAT_PATTERN" | grep -vE "$NOT_SPLAT" | head -n 20)

# QEMU tells of every DMA the IOMMU refused; that is for the log.
sed 's/^/qemu: /' "$tmp/qemu.err" >> "$log"

if [[ -n $splat ]]; then
	show_log "the guest's kernel complained:"
	printf '%s\n' "$splat" >&2
	if [[ -z $keep_log ]]; then
		first=${splat%%:*}
		echo "$SCRIPT_NAME: its console around the first complaint:" >&2
		tr -d '\r' < "$log" | sed -n "$((first > 5 ? first - 5 : 1)),$((first + 80))p" >&2
	fi
	exit $EXIT_SPLAT
fi

if [[ -e $tmp/stuck ]]; then
	show_log "not booted after $BOOT_SECONDS seconds; the last words:"
	tail -n 25 "$log" >&2
	exit $EXIT_QEMU
fi

if ((qemu_status == 124 || qemu_status == 137)) && [[ -z $status ]]; then
	show_log "no end after $timeout seconds; the guest's last words:"
	tail -n 25 "$log" >&2
	exit $EXIT_TIMEOUT
fi

if [[ -z $status ]]; then
	show_log "QEMU ended (status $qemu_status) before the program did; the last words:"
	tail -n 25 "$log" >&2
	exit $EXIT_QEMU
fi

if ((status > 123)); then
	show_log "the program ended with status $status (over 128: by signal $((status - 128)))"
	status=123
fi
if ((status != 0)) && [[ -z $keep_log ]]; then
	echo "$SCRIPT_NAME: status $status; the guest's last words:" >&2
	tail -n 15 "$log" >&2
fi
exit "$status"
