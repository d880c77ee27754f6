/* SPDX-License-Identifier: GPL-2.0 */
#ifndef SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_DMA_BUF_H
#define SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_DMA_BUF_H

#include <linux/types.h>
#include <linux/vfio.h>

#include <libvfio.h>

/* The file of a dma-buf of the first @size bytes of a BAR, or a negative errno */
int dev_dmabuf_export(struct vfio_pci_device *dev, int bar, u64 size);

#endif /* SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_DMA_BUF_H */
