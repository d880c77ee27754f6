# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# Packages from the mirrors that this machine's apt knows, by an apt of our own, which leaves
# the machine's alone.  Sourced.

apt=''
readonly KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

# Leaves a folder for it in $apt
apt_begin()
{
	[[ -r $KEYRING ]] || die "$KEYRING is missing; install debian-archive-keyring"

	scratch apt "$CACHE"
	mkdir -p "$apt"/{lists/partial,cache/archives/partial,download}
	: > "$apt/status"
}

# The addresses apt is configured with, in either of its formats.
apt_uris()
{
	local apt_etc=${APT_ETC:-/etc/apt}

	{
		cat "$apt_etc/sources.list" "$apt_etc/sources.list.d"/*.list 2>/dev/null |
			sed -nE 's/^[[:space:]]*deb(-src)?[[:space:]]+(\[[^]]*\][[:space:]]+)?([^[:space:]]+).*/\3/p'
		cat "$apt_etc/sources.list" "$apt_etc/sources.list.d"/*.sources 2>/dev/null |
			sed -nE 's/^[Uu][Rr][Ii][Ss]:[[:space:]]*(.*)/\1/p' | tr -s ' \t' '\n'
	} | sed 's,/*$,,' | awk 'NF && !seen[$0]++'
}

# The ones that may have a suite: the security archive stands beside the main one.
mirrors_for()
{
	local suite=$1 uri

	for uri in $(apt_uris); do
		case $suite:$uri in
		*-security:*debian-security)	echo "$uri" ;;
		*-security:*/debian)		echo "$uri-security" ;;
		*:*debian-security)		echo "${uri%-security}" ;;
		*:*/debian)			echo "$uri" ;;
		esac
	done | awk '!seen[$0]++'
}

private_apt()
{
	apt-get -q -o Dir::Etc::sourcelist="$apt/sources.list" -o Dir::Etc::sourceparts=- \
		-o Dir::State::lists="$apt/lists" -o Dir::State::status="$apt/status" \
		-o Dir::Cache="$apt/cache" -o APT::Sandbox::User="$(id -un)" \
		-o Acquire::Languages=none -o Acquire::Retries=3 \
		-o Acquire::Check-Valid-Until=false -o APT::Update::Error-Mode=any "$@"
}

private_apt_cache()
{
	apt-cache -q -o Dir::Etc::sourcelist="$apt/sources.list" -o Dir::Etc::sourceparts=- \
		-o Dir::State::lists="$apt/lists" -o Dir::State::status="$apt/status" \
		-o Dir::Cache="$apt/cache" "$@"
}
