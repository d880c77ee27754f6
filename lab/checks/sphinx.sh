# shellcheck shell=bash disable=SC2154,SC2034,SC2164
# SPDX-License-Identifier: GPL-2.0
#
# Sphinx, of the pages that the series changes, and those with the kernel-doc of a file
# that it changes: with the kernel's own configuration, but page by page, in seconds.
# All of Documentation/driver-api takes minutes.  As no other page is read, a
# reference to one by :doc: or :ref: counts as broken; plain paths are fine.
needs_sphinx="sphinx-build python3-sphinx"

pages()
{
	local file pattern=

	printf '%s\n' "${changed[@]}" | { grep '^Documentation/.*\.rst$' || :; }
	for file in "${changed[@]}"; do
		[[ $file != *.[ch] ]] || pattern+="${pattern:+|}${file//./\\.}"
	done
	[[ -z $pattern ]] ||
		git -C "$SRC" grep -lE "^\\.\\. kernel-doc:: +($pattern)\$" "$tip" -- 'Documentation/*.rst' |
			sed 's/^[^:]*://' || :
}

# run_sphinx PAGE...
run_sphinx()
{
	local page name word options

	# Older kernels call a program for kernel-doc, and are told which.
	options=(-D kerneldoc_srctree="$SRC")
	if grep -q '^kerneldoc_bin' "$SRC/Documentation/conf.py"; then
		options+=(-D kerneldoc_bin="$SRC/scripts/kernel-doc")
	fi
	for page; do
		[[ -f $SRC/$page ]] || continue
		name=$(basename "$page" .rst)
		rm -rf "$WORK/sphinx"
		(cd "$SRC" && LC_ALL=C.UTF-8 PYTHONDONTWRITEBYTECODE=1 srctree=$SRC \
			BUILDDIR=$WORK/sphinx sphinx-build -q -b html -c Documentation \
			-d "$WORK/sphinx/doctrees" "${options[@]}" -D version=check -D release=check \
			-D root_doc="$name" -D include_patterns="$name.rst" \
			"$(dirname "$page")" "$WORK/sphinx/html") || return 1
		[[ -s $WORK/sphinx/html/$name.html ]] || {
			echo "error: $page was not built"
			return 1
		}
		# Nobody else notices a function that is not there any more.
		awk '/^   :(identifiers|functions):/ { names = 1; sub(/:[a-z]+:/, "") }
			names && !NF { names = 0 }
			names { for (i = 1; i <= NF; i++) print $i }' "$SRC/$page" |
		while read -r word; do
			grep -q "id=\"c\.$word\"" "$WORK/sphinx/html/$name.html" ||
				echo "$page: WARNING: no kernel-doc of $word"
		done
	done
}

check_sphinx()
{
	local which stamp log=$LOGS/sphinx.log status=0

	checkout "$tip"
	mapfile -t pages < <(pages | sort -u)
	stamp=$(key "pages run_sphinx added normalize" sphinx "${pages[*]}" \
		"$(git -C "$SRC" rev-parse "$base^{tree}")" "$(git -C "$SRC" rev-parse "$tip^{tree}")")
	if ! seen "$stamp"; then
		rm -f "$log"
		for which in base tip; do
			checkout "${!which}"
			progress "checks, sphinx: $which" "$WORK/sphinx.$which" run_sphinx "${pages[@]}" || {
				tail -n 20 "$WORK/sphinx.$which" > "$log"
				status=1
				break
			}
		done
		if ((!status)); then
			added "$WORK/sphinx.base" "$WORK/sphinx.tip" > "$log"
			[[ ! -s $log ]] || status=1
		fi
		((status)) || remember "$stamp"
	fi
	report "$status" "sphinx: ${#pages[@]} pages, no new warning" "$log"
}
