// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>

#include <libvfio/dma_buf.h>

int dev_dmabuf_export(struct vfio_pci_device *dev, int bar, u64 size)
{
	struct {
		struct vfio_device_feature feature;
		struct vfio_device_feature_dma_buf dma_buf;
		struct vfio_region_dma_range range;
	} arg = {
		.feature.argsz = sizeof(arg),
		.feature.flags = VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_DMA_BUF,
		.dma_buf.region_index = bar,
		.dma_buf.open_flags = O_RDWR | O_CLOEXEC,
		.dma_buf.nr_ranges = 1,
		.range.length = size,
	};
	int fd = ioctl(dev->fd, VFIO_DEVICE_FEATURE, &arg);

	return fd < 0 ? -errno : fd;
}
