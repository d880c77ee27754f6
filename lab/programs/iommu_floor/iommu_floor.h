/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What /dev/iommu_floor is asked, and answers.
 */
#ifndef SELFTESTS_VFIO_IOMMU_FLOOR_H
#define SELFTESTS_VFIO_IOMMU_FLOOR_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define IOMMU_FLOOR_DEV	"iommu_floor"

/*
 * In: the device, by address, and @count ranges of @size bytes: the one with the number
 * i is at @iova + i * @step, and at @phys + i * @size of memory that has @span bytes
 * and repeats.  Out: ticks of the CPU's counter, for all of them.
 */
struct iommu_floor {
	__u16 domain;
	__u8 bus;
	__u8 devfn;
	__u32 count;
	__u64 iova;
	__u64 phys;
	__u64 size;
	__u64 step;
	__u64 span;
	__u64 map;
	__u64 unmap;
};

#define IOMMU_FLOOR_MEASURE	_IOWR('I', 0xf0, struct iommu_floor)

#endif /* SELFTESTS_VFIO_IOMMU_FLOOR_H */
