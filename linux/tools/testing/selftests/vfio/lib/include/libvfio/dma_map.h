/* SPDX-License-Identifier: GPL-2.0 */
/*
 * DMA mappings of any range, for reading or writing or both, from any thread.  iommu_map()
 * maps for both, and keeps a list.
 */
#ifndef SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_DMA_MAP_H
#define SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_DMA_MAP_H

#include <stdbool.h>

#include <linux/types.h>
#include <linux/vfio.h>

#include <libvfio.h>

#define DMA_RW		(VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE)
#define DMA_RO		VFIO_DMA_MAP_FLAG_READ
#define DMA_WO		VFIO_DMA_MAP_FLAG_WRITE

int dma_map(struct iommu *iommu, u64 iova, const void *vaddr, u64 size, u32 flags);
/* Return the number of bytes unmapped, or a negative errno */
s64 dma_unmap(struct iommu *iommu, u64 iova, u64 size);
s64 dma_unmap_flags(struct iommu *iommu, u64 iova, u64 size, u32 flags);
/* How many more mappings the container would take */
s64 dma_avail(struct iommu *iommu);
int dma_track_dirty(struct iommu *iommu, bool on);
bool dma_has(struct iommu *iommu, int extension);

#endif /* SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_DMA_MAP_H */
