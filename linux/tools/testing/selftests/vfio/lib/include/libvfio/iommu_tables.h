/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The IOMMU's own page tables, as the kernel shows them in debugfs.
 */
#ifndef SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_IOMMU_TABLES_H
#define SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_IOMMU_TABLES_H

#include <stdbool.h>

#include <linux/types.h>

/*
 * Is @iova mapped for the device, and to which physical address?  Returns 1 if mapped, 0
 * if not, negative if this kernel or this IOMMU does not tell.
 */
int iommu_lookup(const char *bdf, u64 iova, u64 *phys);
/* How many entries of them map a part of that */
int iommu_count(const char *bdf, u64 iova, u64 size);
/* Is it mapped to @phys?  True as well if nothing is known; says so if it is not */
bool iommu_maps(const char *bdf, u64 iova, u64 phys);
/* Where they begin, which tells one domain from another; 0 if that is not known */
u64 iommu_table(const char *bdf);

#endif /* SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_IOMMU_TABLES_H */
