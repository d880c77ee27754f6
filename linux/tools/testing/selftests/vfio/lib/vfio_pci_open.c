// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/pci_regs.h>

#include <libvfio.h>
#include <libvfio/iommu_tables.h>
#include <libvfio/pci_sysfs.h>
#include <libvfio/system.h>
#include <libvfio/vfio_pci_open.h>

void fd_close(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void iommu_close(struct iommu **iommu)
{
	if (*iommu)
		iommu_cleanup(*iommu);
	*iommu = NULL;
}

int group_patience_ms = 10000;

int group_open(const char *bdf)
{
	u64 deadline = now_us() + group_patience_ms * 1000;
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/dev/vfio/%d", sysfs_iommu_group_get(bdf));
	while ((fd = open(path, O_RDWR | O_CLOEXEC)) < 0 && errno == EBUSY && now_us() < deadline)
		usleep(50000);

	return fd < 0 ? -errno : fd;
}

int group_attach(struct vfio_pci_device *dev)
{
	if (ioctl(dev->group_fd, VFIO_GROUP_SET_CONTAINER, &dev->iommu->container_fd))
		return -errno;

	vfio_container_set_iommu(dev);
	return 0;
}

int group_detach(const struct vfio_pci_device *dev)
{
	return ioctl(dev->group_fd, VFIO_GROUP_UNSET_CONTAINER) ? -errno : 0;
}

struct vfio_pci_device *dev_alloc(const char *bdf, struct iommu *iommu)
{
	struct vfio_pci_device *dev = vfio_pci_device_alloc(bdf, iommu);

	dev->fd = -1;
	dev->group_fd = -1;
	return dev;
}

int dev_prepare(const char *bdf)
{
	int ret;

	ret = pci_bind_vfio(bdf);
	if (!ret)
		ret = group_open(bdf);
	if (ret < 0)
		return ret;

	close(ret);
	return 0;
}

/* @dev has a group, which is in its container */
static int dev_open_in_group(struct vfio_pci_device **pdev, struct vfio_pci_device *dev)
{
	int ret;

	__vfio_pci_group_get_device_fd(dev, dev->bdf, NULL);
	dev->info.argsz = sizeof(dev->info);
	if (dev->fd < 0 || ioctl(dev->fd, VFIO_DEVICE_GET_INFO, &dev->info))
		ret = -errno;
	else
		ret = region_info(dev->fd, VFIO_PCI_CONFIG_REGION_INDEX, &dev->config_space);
	if (ret)
		dev_close(&dev);

	*pdev = dev;
	return ret;
}

int dev_open(struct vfio_pci_device **pdev, const char *bdf, struct iommu *iommu)
{
	struct vfio_pci_device *dev;
	int ret;

	*pdev = NULL;
	ret = dev_prepare(bdf);
	if (ret)
		return ret;

	dev = dev_alloc(bdf, iommu);
	vfio_pci_group_setup(dev, bdf);
	vfio_container_set_iommu(dev);

	return dev_open_in_group(pdev, dev);
}

int dev_open_apart(struct vfio_pci_device **pdev, const char *bdf, struct iommu *iommu,
		   const char *other)
{
	struct vfio_pci_device *dev;
	int inject, nth, ret;
	bool more = true;

	*pdev = NULL;
	ret = dev_prepare(bdf);
	if (ret)
		return ret;
	inject = fault_inject_open();
	if (inject < 0)
		return -ENODATA;

	dev = dev_alloc(bdf, iommu);
	for (nth = 1, ret = -ENODATA; ret && more; nth++) {
		dev->group_fd = group_open(bdf);
		fault_inject(inject, nth);
		ret = ioctl(dev->group_fd, VFIO_GROUP_SET_CONTAINER, &iommu->container_fd);
		ret = ret ? -errno : 0;
		more = fault_injected(inject);
		if (!ret && iommu_table(bdf) == iommu_table(other))
			ret = -ENODATA;
		if (ret)
			fd_close(&dev->group_fd);
	}
	fd_close(&inject);
	if (!ret)
		return dev_open_in_group(pdev, dev);

	/* That was the last try, in which nothing was made to fail */
	dev_close(&dev);
	return ret;
}

int dev_get_fd(const struct vfio_pci_device *dev)
{
	struct vfio_pci_device again = *dev;

	__vfio_pci_group_get_device_fd(&again, dev->bdf, NULL);
	return again.fd < 0 ? -errno : again.fd;
}

void dev_close_fd(struct vfio_pci_device *dev)
{
	int i;

	if (dev->driver.initialized)
		vfio_pci_driver_remove(dev);
	for (i = 0; i < PCI_STD_NUM_BARS; i++) {
		if (dev->bars[i].vaddr)
			munmap(dev->bars[i].vaddr, dev->bars[i].info.size);
		dev->bars[i].vaddr = NULL;
	}
	fd_close(&dev->fd);
}

void dev_close(struct vfio_pci_device **pdev)
{
	struct vfio_pci_device *dev = *pdev;

	if (!dev)
		return;

	dev_close_fd(dev);
	fd_close(&dev->group_fd);
	vfio_pci_device_free(dev);
	*pdev = NULL;
}

const char *mode_is_missing(const char *mode, const char *bdf)
{
	char path[PATH_MAX];

	if (strncmp(mode, "iommufd", strlen("iommufd")))
		return NULL;
	if (access("/dev/iommu", R_OK | W_OK))
		return "this kernel has no iommufd";

	snprintf(path, sizeof(path), PCI_DEVICES "/%s/vfio-dev", bdf);
	if (!strcmp(mode, MODE_IOMMUFD) && access(path, F_OK))
		return "this kernel has no character devices of vfio";

	return NULL;
}

int region_info(int devfd, unsigned int index, struct vfio_region_info *info)
{
	memset(info, 0, sizeof(*info));
	info->argsz = sizeof(*info);
	info->index = index;

	return ioctl(devfd, VFIO_DEVICE_GET_REGION_INFO, info) ? -errno : 0;
}

bool region_can_mmap(int devfd, unsigned int index)
{
	struct vfio_region_info info;

	return !region_info(devfd, index, &info) && (info.flags & VFIO_REGION_INFO_FLAG_MMAP);
}

void *bar_mmap_at(void *addr, int devfd, unsigned int index, int prot, size_t offset,
		  size_t size)
{
	struct vfio_region_info info;
	void *p;

	if (region_info(devfd, index, &info) || !(info.flags & VFIO_REGION_INFO_FLAG_MMAP))
		return NULL;

	p = mmap(addr, size, prot, MAP_SHARED | (addr ? MAP_FIXED : 0), devfd,
		 info.offset + offset);

	return p == MAP_FAILED ? NULL : p;
}

void *bar_mmap(int devfd, unsigned int index, int prot, size_t offset, size_t size)
{
	return bar_mmap_at(NULL, devfd, index, prot, offset, size);
}

bool dev_can_reset(const struct vfio_pci_device *dev)
{
	return dev->info.flags & VFIO_DEVICE_FLAGS_RESET;
}

int dev_hot_reset(const struct vfio_pci_device *dev)
{
	struct vfio_pci_hot_reset *reset;
	size_t size = sizeof(*reset) + sizeof(reset->group_fds[0]);
	int ret = 0;

	reset = calloc(1, size);
	if (!reset)
		return -ENOMEM;

	reset->argsz = size;
	reset->count = 1;
	reset->group_fds[0] = dev->group_fd;
	if (ioctl(dev->fd, VFIO_DEVICE_PCI_HOT_RESET, reset))
		ret = -errno;
	free(reset);

	return ret;
}

int dev_function_level_reset(struct vfio_pci_device *dev)
{
	u8 pos = dev_find_cap(dev, PCI_CAP_ID_EXP);
	u16 ctl;

	if (!pos || !(vfio_pci_config_readl(dev, pos + PCI_EXP_DEVCAP) & PCI_EXP_DEVCAP_FLR))
		return -ENOTTY;

	ctl = vfio_pci_config_readw(dev, pos + PCI_EXP_DEVCTL);
	vfio_pci_config_writew(dev, pos + PCI_EXP_DEVCTL, ctl | PCI_EXP_DEVCTL_BCR_FLR);
	return 0;
}

u8 dev_find_cap(struct vfio_pci_device *dev, u8 id)
{
	u8 pos = vfio_pci_config_readb(dev, PCI_CAPABILITY_LIST);

	while (pos && vfio_pci_config_readb(dev, pos + PCI_CAP_LIST_ID) != id)
		pos = vfio_pci_config_readb(dev, pos + PCI_CAP_LIST_NEXT);

	return pos;
}

void dev_set_power(struct vfio_pci_device *dev, u16 state)
{
	u8 pos = dev_find_cap(dev, PCI_CAP_ID_PM);
	u16 ctrl = vfio_pci_config_readw(dev, pos + PCI_PM_CTRL);

	vfio_pci_config_writew(dev, pos + PCI_PM_CTRL,
			       (ctrl & ~PCI_PM_CTRL_STATE_MASK) | state);
}

int dev_feature_set(struct vfio_pci_device *dev, u32 feature)
{
	struct vfio_device_feature arg = {
		.argsz = sizeof(arg),
		.flags = VFIO_DEVICE_FEATURE_SET | feature,
	};

	return ioctl(dev->fd, VFIO_DEVICE_FEATURE, &arg) ? -errno : 0;
}

int dev_low_power_with_wakeup(struct vfio_pci_device *dev, int eventfd)
{
	struct {
		struct vfio_device_feature feature;
		struct vfio_device_low_power_entry_with_wakeup entry;
	} arg = {
		.feature.argsz = sizeof(arg),
		.feature.flags = VFIO_DEVICE_FEATURE_SET |
				 VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP,
		.entry.wakeup_eventfd = eventfd,
	};

	return ioctl(dev->fd, VFIO_DEVICE_FEATURE, &arg) ? -errno : 0;
}
