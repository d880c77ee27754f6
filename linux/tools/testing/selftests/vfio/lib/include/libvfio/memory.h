/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Memory of the process, of one kind or another, and what the kernel accounts for it.
 */
#ifndef SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_MEMORY_H
#define SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

#include <linux/sizes.h>
#include <linux/types.h>

/* What the kernel accounts to this process, in KiB */
long proc_locked_kb(void);
long proc_page_tables_kb(void);

/*
 * RAM_SIZE bytes in one huge page or in small ones, of one kind or another, shared ones
 * with their file.  ram_is_missing() says why a kernel does not have a kind.
 */
#define RAM_SIZE	SZ_2M

struct ram_kind {
	bool huge;
	bool shared;
	bool hugetlb;
};

#define RAM_BYTE	0x11		/* what all of it is filled with */

const char *ram_is_missing(const struct ram_kind *kind);
void *ram_of_kind(const struct ram_kind *kind, int *fd);
/* Addresses where huge pages fit */
void *ram_reserve(size_t size);
/* Memory with its pages in place */
void *ram_alloc(size_t size);

/*
 * An empty ext4 on the pmem device that VFIO_SELFTESTS_PMEM in the environment names.  It is
 * formatted, so it is not looked for anywhere else.  Says why there is none, or NULL.
 */
#define PMEM_DIR_LEN	32

const char *pmem_mount(char *dir, const char *options);
/* Fails if there are users of it left.  Then too it is out of the way */
int pmem_unmount(char *dir);

/*
 * Which page frames are behind @n pages of this process?  0 for none: not there, or for
 * the user to know.
 */
int pages_of(const void *addr, size_t n, u64 *pfn);
bool ram_is_huge(const void *addr);

#endif /* SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_MEMORY_H */
