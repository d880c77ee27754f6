/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What /dev/iommu_floor is asked, and answers.
 */
#ifndef SELFTESTS_VFIO_IOMMU_FLOOR_H
#define SELFTESTS_VFIO_IOMMU_FLOOR_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define IOMMU_FLOOR_DEV	"iommu_floor"

/* In: the device, by address, and the range.  Out: ticks of the CPU's counter */
struct iommu_floor {
	__u16 domain;
	__u8 bus;
	__u8 devfn;
	__u32 reserved;
	__u64 iova;
	__u64 phys;
	__u64 size;
	__u64 map;
	__u64 unmap;
};

#define IOMMU_FLOOR_MEASURE	_IOWR('I', 0xf0, struct iommu_floor)

#endif /* SELFTESTS_VFIO_IOMMU_FLOOR_H */
