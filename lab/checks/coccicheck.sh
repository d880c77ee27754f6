# shellcheck shell=bash disable=SC2154,SC2034,SC2164
# SPDX-License-Identifier: GPL-2.0
#
# coccicheck, of the whole series
needs_coccicheck="spatch coccinelle"

# The kernel's coccicheck takes a folder: give it one with the changed files only.
run_coccicheck()
{
	local file cocci folder=$WORK/cocci

	rm -rf "$folder"
	mkdir -p "$folder"
	for file in "${changed[@]}"; do
		if [[ $file == drivers/*.[ch] && -f $SRC/$file ]]; then
			(cd "$SRC" && cp --parents "$file" "$folder") || return 1
		fi
	done
	cd "$SRC" || return 1
	find scripts/coccinelle -name '*.cocci' | sort > "$folder/list"
	while read -r cocci; do
		if grep -Eq '^@[^@]*script:ocaml|^@initialize:ocaml' "$cocci"; then
			echo "not run, needs an OCaml compiler: $cocci"
			continue
		fi
		COCCI=$cocci MODE=report J=$JOBS KBUILD_EXTMOD=$folder srctree=$SRC \
			LINUXINCLUDE="-I$SRC/include -I$SRC/include/uapi" \
			bash scripts/coccicheck || return 1
	done < "$folder/list"
}

reports()
{
	sed -n "s,^$WORK/cocci/,,p" "$1" | grep -E '^[^ ]+\.[ch]:[0-9]+' || :
}

check_coccicheck()
{
	local status log

	compare coccicheck run_coccicheck reports ""
	report "$status" "coccicheck: no new report in the changed files" "$log"
	grep -s '^not run' "$WORK/found.tip" | sed 's/^/# coccicheck: /' || :
}
