// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#include <linux/sizes.h>

#include <libvfio/dma_map.h>

int dma_map(struct iommu *iommu, u64 iova, const void *vaddr, u64 size, u32 flags)
{
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof(map),
		.flags = flags,
		.vaddr = (uintptr_t)vaddr,
		.iova = iova,
		.size = size,
	};

	return ioctl(iommu->container_fd, VFIO_IOMMU_MAP_DMA, &map) ? -errno : 0;
}

s64 dma_unmap_flags(struct iommu *iommu, u64 iova, u64 size, u32 flags)
{
	struct vfio_iommu_type1_dma_unmap unmap = {
		.argsz = sizeof(unmap),
		.flags = flags,
		.iova = iova,
		.size = size,
	};

	if (ioctl(iommu->container_fd, VFIO_IOMMU_UNMAP_DMA, &unmap))
		return -errno;

	return unmap.size;
}

s64 dma_unmap(struct iommu *iommu, u64 iova, u64 size)
{
	return dma_unmap_flags(iommu, iova, size, 0);
}

bool dma_has(struct iommu *iommu, int extension)
{
	return ioctl(iommu->container_fd, VFIO_CHECK_EXTENSION, extension) > 0;
}

int dma_track_dirty(struct iommu *iommu, bool on)
{
	struct vfio_iommu_type1_dirty_bitmap dirty = {
		.argsz = sizeof(dirty),
		.flags = on ? VFIO_IOMMU_DIRTY_PAGES_FLAG_START :
			      VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP,
	};

	return ioctl(iommu->container_fd, VFIO_IOMMU_DIRTY_PAGES, &dirty) ? -errno : 0;
}

s64 dma_avail(struct iommu *iommu)
{
	struct vfio_iommu_type1_info_dma_avail *cap;
	struct vfio_iommu_type1_info *info;
	struct vfio_info_cap_header *hdr;
	s64 ret = -ENOENT;
	u32 off;

	info = calloc(1, SZ_4K);
	if (!info)
		return -ENOMEM;

	info->argsz = SZ_4K;
	if (ioctl(iommu->container_fd, VFIO_IOMMU_GET_INFO, info)) {
		ret = -errno;
	} else if (info->flags & VFIO_IOMMU_INFO_CAPS) {
		for (off = info->cap_offset; off; off = hdr->next) {
			hdr = (void *)info + off;
			if (hdr->id != VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL)
				continue;
			cap = (void *)hdr;
			ret = cap->avail;
			break;
		}
	}
	free(info);

	return ret;
}
