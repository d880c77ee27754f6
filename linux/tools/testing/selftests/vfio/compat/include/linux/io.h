/* SPDX-License-Identifier: GPL-2.0 */
#ifndef SELFTESTS_VFIO_COMPAT_LINUX_IO_H
#define SELFTESTS_VFIO_COMPAT_LINUX_IO_H

#include <linux/types.h>

/* Registers: each is one access of exactly its width, none is left out or moved */
#define readl(addr)		__atomic_load_n((const u32 *)(addr), __ATOMIC_SEQ_CST)
#define readq(addr)		__atomic_load_n((const u64 *)(addr), __ATOMIC_SEQ_CST)
#define writel(value, addr)	__atomic_store_n((u32 *)(addr), (value), __ATOMIC_RELEASE)
#define writeq(value, addr)	__atomic_store_n((u64 *)(addr), (value), __ATOMIC_RELEASE)

#endif /* SELFTESTS_VFIO_COMPAT_LINUX_IO_H */
