#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: deps.sh [source|run|debian|bench|mail|test|bisect]
#
# Make sure that the packages in lab/packages are installed: those to get the source and
# make a series of it, also those to build and run the kernels, to measure them, to mail
# the series, or to test it, and each patch of it.  As root they are installed; anybody
# else is told the command.

. "$(dirname "$0")/lib.sh"

case ${1:-test} in
source)	kinds=source ;;
run)	kinds='source|run' ;;
debian)	kinds='source|run|debian' ;;
bench)	kinds='source|run|bench' ;;
mail)	kinds='source|mail' ;;
test|bisect)
	kinds='source|run|bench|test' ;;
*)	die "usage: deps.sh [source|run|debian|bench|mail|test|bisect]" ;;
esac

mapfile -t wanted < <(awk -v kinds="^($kinds)\$" '$1 ~ kinds { print $2 }' "$TOP/lab/packages")

((${#wanted[@]})) || exit 0

missing()
{
	comm -23 <(printf '%s\n' "${wanted[@]}" | sort -u) \
		<(dpkg-query -W -f '${db:Status-Status} ${Package}\n' 2>/dev/null |
			sed -n 's/^installed //p' | sort -u)
}

install_packages()
{
	export DEBIAN_FRONTEND=noninteractive
	apt-get -q -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 update
	apt-get -q -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 \
		install --no-install-recommends "${need[@]}"
}

if ! command -v dpkg-query >/dev/null; then
	say "this is not Debian, so what is needed is not looked for: what corresponds to ${wanted[*]}"
	exit 0
fi
mapfile -t need < <(missing)
((${#need[@]})) || exit 0
if [[ $(id -u) != 0 ]]; then
	die "packages are missing; run this as root: apt-get update && apt-get install --no-install-recommends ${need[*]}"
fi
BUILD=$(absolute "$BUILD")
claim BUILD
log=$BUILD/deps.log
if ! progress "installing ${#need[@]} packages" "$log" install_packages; then
	die "cannot install ${need[*]}: $(why_apt_failed "$log" "the mirror that apt is configured with")"
fi
