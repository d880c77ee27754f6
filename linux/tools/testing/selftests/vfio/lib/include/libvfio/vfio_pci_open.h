/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Devices that are opened and closed part by part.  vfio_pci_device_init() opens all there is
 * of a device and maps every BAR, and vfio_pci_device_cleanup() insists on finding it so.
 * Where it matters what of a device is open, and what goes first, tests use these.
 *
 * @bdf has to last as long as the device.  An fd that is closed is -1, a device that is closed
 * is NULL.  Functions return 0 or a positive value for success and a negative errno otherwise,
 * unless they say something else.
 */
#ifndef SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_VFIO_PCI_OPEN_H
#define SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_VFIO_PCI_OPEN_H

#include <stdbool.h>
#include <stddef.h>

#include <linux/types.h>
#include <linux/vfio.h>

#include <libvfio.h>

/*
 * How long to wait for a group, in milliseconds, that another process has: the
 * last test's children may still be about to exit.
 */
extern int group_patience_ms;

int group_open(const char *bdf);
/* The first group in a container also gives it its IOMMU backend */
int group_attach(struct vfio_pci_device *dev);
int group_detach(const struct vfio_pci_device *dev);

struct vfio_pci_device *dev_alloc(const char *bdf, struct iommu *iommu);
/* Bind it to vfio-pci and wait for its group.  Then libvfio can open it */
int dev_prepare(const char *bdf);
/* The device alone, without its BARs */
int dev_open(struct vfio_pci_device **dev, const char *bdf, struct iommu *iommu);
/*
 * The same, with its group in another domain of the IOMMU than that of device @other, which
 * is in the container.  The kernel attaches it to one of its own if it has no memory to
 * attach it to that one.  -ENODATA if it always has, or if memory cannot be made to fail.
 */
int dev_open_apart(struct vfio_pci_device **dev, const char *bdf, struct iommu *iommu,
		   const char *other);
/* One more fd of the device */
int dev_get_fd(const struct vfio_pci_device *dev);
/* All but the group */
void dev_close_fd(struct vfio_pci_device *dev);
void dev_close(struct vfio_pci_device **dev);
void fd_close(int *fd);
void iommu_close(struct iommu **iommu);
/* Why a device cannot be opened in this mode of libvfio's, or NULL */
const char *mode_is_missing(const char *mode, const char *bdf);

int region_info(int devfd, unsigned int index, struct vfio_region_info *info);
bool region_can_mmap(int devfd, unsigned int index);
void *bar_mmap(int devfd, unsigned int index, int prot, size_t offset, size_t size);
void *bar_mmap_at(void *addr, int devfd, unsigned int index, int prot, size_t offset,
		  size_t size);

bool dev_can_reset(const struct vfio_pci_device *dev);
int dev_hot_reset(const struct vfio_pci_device *dev);
int dev_function_level_reset(struct vfio_pci_device *dev);

/* Where a capability is in the config space of the device, or 0 */
u8 dev_find_cap(struct vfio_pci_device *dev, u8 id);
/* D0 to D3hot, of a device with power management */
void dev_set_power(struct vfio_pci_device *dev, u16 state);
int dev_feature_set(struct vfio_pci_device *dev, u32 feature);
int dev_low_power_with_wakeup(struct vfio_pci_device *dev, int eventfd);

#endif /* SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_VFIO_PCI_OPEN_H */
