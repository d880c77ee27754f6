#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: debian.sh BASE
#
# Debian's own kernel image of a base, beside the series' modules for it: build/BASE/debian/stock
# has Debian's bzImage and vfio modules, build/BASE/debian/patched the same image with ours.
# These are drivers/vfio of the series, built by Debian's headers and compiler in a small
# Debian (a chroot in the cache), with the headers that the series changes in front.  What the
# series changes outside of drivers/vfio is Debian's, or in lab/debian/BASE.h.

. "$(dirname "$0")/lib.sh"
load_base "${1:-}"
# shellcheck source=lab/mirror.sh
. "$TOP/lab/mirror.sh"

[[ -n $DEBIAN_RELEASE ]] ||
	die "$BASE is not built for Debian's own image; make run BASE=$BASE DEBUG=1 builds a kernel of its own"
"$TOP/lab/deps.sh" debian
[[ $(id -u) == 0 ]] || die "modules for Debian's image are built in a chroot, which takes root; DEBUG=1 needs none"

# In the order in which they are loaded
MODULES="irqbypass iommufd vfio vfio_virqfd vfio_iommu_type1 vfio-pci-core vfio-pci"
image=$CACHE/debian/$BASE
to=$OUT/debian
extra=$TOP/lab/debian/$BASE.h
new=''

# Where kernels of the release may be
sources()
{
	local suite mirror

	for suite in "$DEBIAN_RELEASE"{,-security,-backports}; do
		mirror=$(mirrors_for "$suite" | head -n 1)
		[[ -n $mirror ]] || die "apt is configured with no Debian mirror"
		echo "deb [signed-by=$KEYRING] $mirror $suite main"
	done
}

# The newest kernel of the base: what its headers are called
newest_kernel()
{
	private_apt_cache search --names-only "^linux-headers-${BASE//./\\.}[-.+][^ ]*-amd64\$" |
		sed -nE 's/^linux-headers-([^ ]*)-amd64 .*/\1/p' | grep -Ev -- '-(rt|cloud)$' |
		sort -V | tail -n 1
}

# The image in one package, or the kernel and the modules in one each
image_packages()
{
	local package

	for package in "linux-binary-$1-amd64 linux-modules-$1-amd64" "linux-image-$1-amd64"; do
		if [[ -n $(private_apt_cache show "${package%% *}" 2>/dev/null) ]]; then
			echo "$package"
			return
		fi
	done
	return 1
}

fetch_image()
{
	local deb packages

	read -ra packages < <(image_packages "$1")
	(cd "$apt/download" && private_apt download "${packages[@]}") || return 1
	mkdir -p "$new/image" || return 1
	for deb in "$apt"/download/*.deb; do
		dpkg-deb -x "$deb" "$new/image" || return 1
	done
}

# What it takes to run make there, unpacked and not installed
make_chroot()
{
	mmdebstrap --quiet --mode=root --variant=extract \
		--aptopt='Acquire::Check-Valid-Until "false"' --aptopt='Acquire::Retries "3"' \
		--include="base-files,bash,binutils,coreutils,dash,diffutils,findutils,gawk,grep,libc-bin,make,sed,tar,linux-headers-$1-amd64" \
		"$DEBIAN_RELEASE" "$new/root" "$apt/sources.list" || return 1
	ln -sf gawk "$new/root/usr/bin/awk"
}

# Leaves all of it in $image, once.  REFRESH=1 looks for a newer kernel
fetch()
{
	local version log=$LOGS/debian.log

	[[ ! -f $image/version || -n ${REFRESH:-} ]] || return 0
	need_space "$CACHE" 1500 "Debian's image and its headers"
	mkdir -p "${image%/*}"
	apt_begin
	sources > "$apt/sources.list"
	progress "looking for Debian's kernels" "$log" private_apt update ||
		die "cannot fetch Debian's kernels: $(why_apt_failed "$log" "the mirror that apt is configured with")"
	version=$(newest_kernel)
	[[ -n $version ]] || die "Debian $DEBIAN_RELEASE has no kernel $BASE any more; DEBUG=1 builds one"
	[[ ! -f $image/version || $(< "$image/version") != "$version" ]] || return 0
	new=$apt/new
	mkdir -p "$new"
	progress "fetching Debian's image, $version" "$log" fetch_image "$version" ||
		die "cannot fetch Debian's image: $(why_apt_failed "$log" "the mirror that apt is configured with")"
	progress "making a small Debian with its headers" "$log" make_chroot "$version" ||
		die "cannot make a chroot of Debian $DEBIAN_RELEASE: $(reason "$log")"
	echo "$version" > "$new/version"
	rm -rf "$image"
	mv -T "$new" "$image"
}

# The headers that the series changes, but mm.h where lab/debian/ stands in for it
headers()
{
	git -C "$tree" diff --name-only --diff-filter=d base series -- include |
		if [[ -f $extra ]]; then grep -v '/mm\.h$'; else cat; fi
}

compile()
{
	local work=$image/root/build file

	rm -rf "$work"
	mkdir -p "$work" || return 1
	git -C "$tree" archive series drivers/vfio | tar -x -C "$work" || return 1
	while read -r file; do
		mkdir -p "$work/${file%/*}" || return 1
		git -C "$tree" show "series:$file" > "$work/$file" || return 1
	done < <(headers)
	# Ours are in front of the headers' own, and those of vfio come before all others
	cat > "$work/Kbuild" <<-'EOF'
		export LINUXINCLUDE := -I$(src)/include $(LINUXINCLUDE)
		obj-m := drivers/vfio/
	EOF
	if [[ -f $extra ]]; then
		cp "$extra" "$work/extra.h" || return 1
		# shellcheck disable=SC2016	# for make
		echo 'subdir-ccflags-y += -include $(src)/extra.h' >> "$work/Kbuild"
	fi
	# objtool reads /proc.  It is mounted for nobody else, and goes with the process.
	# shellcheck disable=SC2016	# for the other shell
	unshare -m sh -c 'mount --bind /proc "$1/proc" && exec chroot "$@"' sh "$image/root" \
		make -C "/usr/src/linux-headers-$version-amd64" M=/build -j"$JOBS" modules
}

# put VARIANT MODULE_DIR...: where VARIANT's modules are looked for, in turn
put()
{
	local dir=$to/$1.new name file from

	rm -rf "$dir"
	mkdir -p "$dir/modules"
	file=$(find "$image/image" -name 'vmlinuz*' -type f -print -quit)
	[[ -n $file ]] || die "Debian's package of $version has no image"
	cp "$file" "$dir/bzImage"
	for name in $MODULES; do
		for from in "${@:2}"; do
			file=$(find "$from" -name "$name.ko*" -print -quit)
			[[ -z $file ]] || break
		done
		case $file in
		'')	continue ;;
		*.xz)	xz -dc "$file" > "$dir/modules/$name.ko" ;;
		*)	cp "$file" "$dir/modules/$name.ko" ;;
		esac
		echo "$name.ko" >> "$dir/modules/order"
	done
	[[ -s $dir/modules/vfio.ko ]] || die "Debian's image of $BASE has no vfio module"
	rm -rf "${to:?}/$1"
	mv -T "$dir" "$to/$1"
}

tree=$("$TOP/lab/compose.sh" "$BASE")
lock "$OUT/.lock-debian"
fetch
version=$(< "$image/version")
key=$({
	echo "$version"
	git -C "$tree" rev-parse series:drivers/vfio
	git -C "$tree" diff base series -- include | sha256sum
	cat "$TOP/lab/debian.sh"
	[[ ! -f $extra ]] || cat "$extra"
} | sha256sum)
if [[ $(cat "$to/key" 2>/dev/null) != "$key" ]]; then
	mkdir -p "$to"
	rm -f "$to/key"
	progress "building the modules for Debian's $version" "$LOGS/debian-build.log" compile ||
		die "the modules do not build for Debian's $version: $(reason "$LOGS/debian-build.log")"
	put stock "$image/image"
	put patched "$image/root/build" "$image/image"
	echo "$key" > "$to/key"
fi
echo "$to"
