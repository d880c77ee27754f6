/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The kernel's files, its log, its modules, and what makes it fail.
 */
#ifndef SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_SYSTEM_H
#define SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_SYSTEM_H

#include <stdbool.h>
#include <stddef.h>

#include <linux/types.h>

/* Write to an existing file, such as one of sysfs, and read one as a string: its length */
int write_text(const char *path, const char *text);
int read_text(const char *path, char *buf, size_t len);

/*
 * Have memory allocations fail in this thread: the @nth from now on, of those that cannot
 * sleep or of all.  fault_inject_open() returns a file for the others, or -ENOENT.
 * fault_injected() says whether one has failed, and ends it.
 */
int fault_inject_open(void);
int fault_inject_all(bool all);
int fault_inject(int fd, int nth);
bool fault_injected(int fd);

/* Device memory: one access of exactly this width each */
#define mmio_read32(addr)	__atomic_load_n((const u32 *)(addr), __ATOMIC_RELAXED)
#define mmio_write32(addr, val)	__atomic_store_n((u32 *)(addr), val, __ATOMIC_RELAXED)

/* Read device memory; returns 0, or -EFAULT when the access raised SIGBUS */
int bus_read32(const void *addr, u32 *val);

/* The kernel log from now on: one line, or the number of those with @word, -1 without log */
int kmsg_open(void);
bool kmsg_read(int fd, char *line, size_t len);
int kmsg_new_lines(int fd, const char *word);

/* Where tracefs is mounted; NULL if nowhere, or if it has no instances */
const char *tracing_dir(void);

/* For a forked child: do not outlive a test that failed, and keep devices busy */
void die_with_parent(void);

/* A kernel module, by its file: -ENOENT if there is none, -EEXIST if it is loaded */
int module_load(const char *path);

u64 now_us(void);

#endif /* SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_SYSTEM_H */
