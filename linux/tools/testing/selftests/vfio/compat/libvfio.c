// SPDX-License-Identifier: GPL-2.0-only
/*
 * The functions of libvfio.h, for kernels that do not have libvfio.
 */
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <unistd.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include <linux/list.h>

#include <libvfio.h>

#ifdef VFIO_DEVICE_BIND_IOMMUFD
#include <linux/iommufd.h>
#endif

#define PCI_DEVICES	"/sys/bus/pci/devices"

static const struct iommu_mode modes[] = {
	{ MODE_VFIO_TYPE1_IOMMU, "/dev/vfio/vfio", VFIO_TYPE1_IOMMU },
	{ MODE_VFIO_TYPE1V2_IOMMU, "/dev/vfio/vfio", VFIO_TYPE1v2_IOMMU },
	{ MODE_IOMMUFD_COMPAT_TYPE1V2, "/dev/iommu", VFIO_TYPE1v2_IOMMU },
	{ MODE_IOMMUFD, NULL, 0 },
};

static int checked_open(const char *path)
{
	int fd = open(path, O_RDWR);

	VFIO_ASSERT_GE(fd, 0, "%s", path);
	return fd;
}

static void checked_close(int fd)
{
	VFIO_ASSERT_EQ(close(fd), 0);
}

static void *checked_alloc(size_t size)
{
	void *p = calloc(1, size);

	VFIO_ASSERT_NOT_NULL(p);
	return p;
}

static void checked_ioctl(int fd, unsigned long request, void *arg)
{
	VFIO_ASSERT_EQ(ioctl(fd, request, arg), 0, "(request 0x%lx)", request);
}

/*
 * sysfs
 */

/* The name of what @link of the device points to, or NULL */
static char *link_name(const char *bdf, const char *link)
{
	char path[PATH_MAX], target[PATH_MAX];
	char *name;
	ssize_t n;

	snprintf(path, sizeof(path), PCI_DEVICES "/%s/%s", bdf, link);
	n = readlink(path, target, sizeof(target) - 1);
	if (n < 0)
		return NULL;
	target[n] = '\0';

	name = strdup(strrchr(target, '/') + 1);
	VFIO_ASSERT_NOT_NULL(name);
	return name;
}

int sysfs_iommu_group_get(const char *bdf)
{
	char *name = link_name(bdf, "iommu_group");
	int group;

	VFIO_ASSERT_NOT_NULL(name, "%s", bdf);
	group = atoi(name);
	free(name);

	return group;
}

char *sysfs_driver_get(const char *bdf)
{
	return link_name(bdf, "driver");
}

/*
 * Address spaces for DMA
 */
#ifdef VFIO_DEVICE_BIND_IOMMUFD
static void iommufd_init(struct iommu *iommu)
{
	struct iommu_ioas_alloc alloc = { .size = sizeof(alloc) };

	iommu->iommufd = checked_open("/dev/iommu");
	checked_ioctl(iommu->iommufd, IOMMU_IOAS_ALLOC, &alloc);
	iommu->ioas_id = alloc.out_ioas_id;
}

static void iommufd_attach(struct vfio_pci_device *device)
{
	struct vfio_device_bind_iommufd bind = {
		.argsz = sizeof(bind),
		.iommufd = device->iommu->iommufd,
	};
	struct vfio_device_attach_iommufd_pt attach = {
		.argsz = sizeof(attach),
		.pt_id = device->iommu->ioas_id,
	};

	checked_ioctl(device->fd, VFIO_DEVICE_BIND_IOMMUFD, &bind);
	checked_ioctl(device->fd, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &attach);
}
#else
static void iommufd_init(struct iommu *iommu)
{
	VFIO_FAIL("This kernel's headers know no iommufd");
}

static void iommufd_attach(struct vfio_pci_device *device)
{
}
#endif

struct iommu *iommu_init(const char *iommu_mode)
{
	struct iommu *iommu = checked_alloc(sizeof(*iommu));
	size_t i;

	INIT_LIST_HEAD(&iommu->dma_regions);
	for (i = 0; i < ARRAY_SIZE(modes); i++)
		if (!strcmp(iommu_mode, modes[i].name))
			iommu->mode = &modes[i];
	VFIO_ASSERT_NOT_NULL(iommu->mode, "%s", iommu_mode);

	if (iommu->mode->container_path)
		iommu->container_fd = checked_open(iommu->mode->container_path);
	else
		iommufd_init(iommu);

	return iommu;
}

void iommu_cleanup(struct iommu *iommu)
{
	checked_close(iommu->mode->container_path ? iommu->container_fd : iommu->iommufd);
	free(iommu);
}

/* Containers only: no test maps anything through iommufd */
int __iommu_map(struct iommu *iommu, struct dma_region *region)
{
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof(map),
		.flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
		.vaddr = (uintptr_t)region->vaddr,
		.iova = region->iova,
		.size = region->size,
	};

	if (ioctl(iommu->container_fd, VFIO_IOMMU_MAP_DMA, &map))
		return -errno;

	list_add(&region->link, &iommu->dma_regions);
	return 0;
}

static int unmap(struct iommu *iommu, struct vfio_iommu_type1_dma_unmap *unmap, u64 *unmapped)
{
	unmap->argsz = sizeof(*unmap);
	if (ioctl(iommu->container_fd, VFIO_IOMMU_UNMAP_DMA, unmap))
		return -errno;

	if (unmapped)
		*unmapped = unmap->size;
	return 0;
}

int __iommu_unmap(struct iommu *iommu, struct dma_region *region, u64 *unmapped)
{
	struct vfio_iommu_type1_dma_unmap args = { .iova = region->iova, .size = region->size };
	int ret;

	ret = unmap(iommu, &args, unmapped);
	if (!ret)
		list_del_init(&region->link);

	return ret;
}

int __iommu_unmap_all(struct iommu *iommu, u64 *unmapped)
{
#ifdef VFIO_DMA_UNMAP_FLAG_ALL
	struct vfio_iommu_type1_dma_unmap args = { .flags = VFIO_DMA_UNMAP_FLAG_ALL };
	int ret;

	ret = unmap(iommu, &args, unmapped);
	while (!ret && !list_empty(&iommu->dma_regions))
		list_del_init(iommu->dma_regions.next);

	return ret;
#else
	return -EOPNOTSUPP;
#endif
}

/*
 * Devices
 */
struct vfio_pci_device *vfio_pci_device_alloc(const char *bdf, struct iommu *iommu)
{
	struct vfio_pci_device *device = checked_alloc(sizeof(*device));

	device->bdf = bdf;
	device->iommu = iommu;
	return device;
}

void vfio_pci_device_free(struct vfio_pci_device *device)
{
	free(device);
}

void vfio_pci_group_setup(struct vfio_pci_device *device, const char *bdf)
{
	struct vfio_group_status status = { .argsz = sizeof(status) };
	char path[64];

	snprintf(path, sizeof(path), "/dev/vfio/%d", sysfs_iommu_group_get(bdf));
	device->group_fd = checked_open(path);
	checked_ioctl(device->group_fd, VFIO_GROUP_GET_STATUS, &status);
	VFIO_ASSERT_TRUE(status.flags & VFIO_GROUP_FLAGS_VIABLE, "%s", bdf);
	checked_ioctl(device->group_fd, VFIO_GROUP_SET_CONTAINER, &device->iommu->container_fd);
}

/* Fails if another group of the container has done it before, which is all right */
void vfio_container_set_iommu(struct vfio_pci_device *device)
{
	if (ioctl(device->iommu->container_fd, VFIO_SET_IOMMU, device->iommu->mode->iommu_type))
		VFIO_ASSERT_EQ(errno, EINVAL);
}

void __vfio_pci_group_get_device_fd(struct vfio_pci_device *device, const char *bdf,
				    const char *vf_token)
{
	VFIO_ASSERT_TRUE(!vf_token);
	device->fd = ioctl(device->group_fd, VFIO_GROUP_GET_DEVICE_FD, bdf);
}

static void cdev_open(struct vfio_pci_device *device, const char *bdf)
{
	char path[PATH_MAX], name[32] = "";
	struct dirent *entry;
	DIR *dir;

	snprintf(path, sizeof(path), PCI_DEVICES "/%s/vfio-dev", bdf);
	dir = opendir(path);
	VFIO_ASSERT_NOT_NULL(dir, "%s", path);
	while ((entry = readdir(dir)))
		if (!strncmp(entry->d_name, "vfio", 4))
			snprintf(name, sizeof(name), "%.31s", entry->d_name);
	closedir(dir);

	snprintf(path, sizeof(path), "/dev/vfio/devices/%s", name);
	device->fd = checked_open(path);
}

static void region_get(struct vfio_pci_device *device, u32 index, struct vfio_region_info *info)
{
	info->argsz = sizeof(*info);
	info->index = index;
	checked_ioctl(device->fd, VFIO_DEVICE_GET_REGION_INFO, info);
}

static void bar_map(struct vfio_pci_device *device, struct vfio_pci_bar *bar)
{
	int prot = 0;

	if (!(bar->info.flags & VFIO_REGION_INFO_FLAG_MMAP))
		return;

	if (bar->info.flags & VFIO_REGION_INFO_FLAG_READ)
		prot |= PROT_READ;
	if (bar->info.flags & VFIO_REGION_INFO_FLAG_WRITE)
		prot |= PROT_WRITE;
	bar->vaddr = mmap(NULL, bar->info.size, prot, MAP_SHARED, device->fd, bar->info.offset);
	VFIO_ASSERT_TRUE(bar->vaddr != MAP_FAILED);
}

struct vfio_pci_device *vfio_pci_device_init(const char *bdf, struct iommu *iommu)
{
	struct vfio_pci_device *device = vfio_pci_device_alloc(bdf, iommu);
	u32 i;

	if (iommu->mode->container_path) {
		vfio_pci_group_setup(device, bdf);
		vfio_container_set_iommu(device);
		__vfio_pci_group_get_device_fd(device, bdf, NULL);
		VFIO_ASSERT_GE(device->fd, 0, "%s", bdf);
	} else {
		cdev_open(device, bdf);
		iommufd_attach(device);
	}

	device->info.argsz = sizeof(device->info);
	checked_ioctl(device->fd, VFIO_DEVICE_GET_INFO, &device->info);
	region_get(device, VFIO_PCI_CONFIG_REGION_INDEX, &device->config_space);
	for (i = 0; i < PCI_STD_NUM_BARS; i++) {
		region_get(device, i, &device->bars[i].info);
		bar_map(device, &device->bars[i]);
	}
	for (i = 0; i < ARRAY_SIZE(device->msi_eventfds); i++)
		device->msi_eventfds[i] = -1;

	if (!edu_ops.probe(device))
		device->driver.ops = &edu_ops;

	return device;
}

void vfio_pci_device_cleanup(struct vfio_pci_device *device)
{
	int i;

	if (device->driver.initialized)
		vfio_pci_driver_remove(device);
	for (i = 0; i < PCI_STD_NUM_BARS; i++)
		if (device->bars[i].vaddr)
			munmap(device->bars[i].vaddr, device->bars[i].info.size);
	checked_close(device->fd);
	if (device->group_fd)
		checked_close(device->group_fd);
	vfio_pci_device_free(device);
}

int __vfio_pci_device_reset(struct vfio_pci_device *device)
{
	return ioctl(device->fd, VFIO_DEVICE_RESET) ? -errno : 0;
}

void vfio_pci_config_access(struct vfio_pci_device *device, bool write, size_t config,
			    size_t size, void *data)
{
	off_t offset = device->config_space.offset + config;
	ssize_t n;

	if (write)
		n = pwrite(device->fd, data, size, offset);
	else
		n = pread(device->fd, data, size, offset);
	VFIO_ASSERT_TRUE(n == (ssize_t)size, "%s, config space at 0x%zx", device->bdf, config);
}

/*
 * Interrupts: one vector is what the tests' devices have
 */
static void irq_set(struct vfio_pci_device *device, u32 index, const int *eventfd)
{
	struct {
		struct vfio_irq_set set;
		int fd;
	} arg = {
		.set.argsz = sizeof(arg),
		.set.flags = VFIO_IRQ_SET_ACTION_TRIGGER,
		.set.index = index,
	};

	if (eventfd) {
		arg.set.flags |= VFIO_IRQ_SET_DATA_EVENTFD;
		arg.set.count = 1;
		arg.fd = *eventfd;
	} else {
		arg.set.flags |= VFIO_IRQ_SET_DATA_NONE;
	}
	checked_ioctl(device->fd, VFIO_DEVICE_SET_IRQS, &arg);
}

void vfio_pci_irq_enable(struct vfio_pci_device *device, u32 index, u32 vector, int count)
{
	VFIO_ASSERT_TRUE(!vector && count == 1);
	device->msi_eventfds[0] = eventfd(0, 0);
	VFIO_ASSERT_GE(device->msi_eventfds[0], 0);
	irq_set(device, index, &device->msi_eventfds[0]);
}

void vfio_pci_irq_disable(struct vfio_pci_device *device, u32 index)
{
	irq_set(device, index, NULL);
	checked_close(device->msi_eventfds[0]);
	device->msi_eventfds[0] = -1;
}

/*
 * DMA
 */
void vfio_pci_driver_init(struct vfio_pci_device *device)
{
	VFIO_ASSERT_NOT_NULL(device->driver.ops, "%s", device->bdf);
	VFIO_ASSERT_NOT_NULL(device->driver.region.vaddr);
	VFIO_ASSERT_TRUE(!device->driver.initialized);
	device->driver.ops->init(device);
	device->driver.initialized = true;
}

void vfio_pci_driver_remove(struct vfio_pci_device *device)
{
	VFIO_ASSERT_TRUE(device->driver.initialized);
	device->driver.ops->remove(device);
	device->driver.initialized = false;
}

int vfio_pci_driver_memcpy(struct vfio_pci_device *device, iova_t src, iova_t dst, u64 size)
{
	struct vfio_pci_driver *driver = &device->driver;
	u64 chunk;
	int ret;

	VFIO_ASSERT_TRUE(driver->initialized);
	for (; size; src += chunk, dst += chunk, size -= chunk) {
		chunk = size < driver->max_memcpy_size ? size : driver->max_memcpy_size;
		driver->ops->memcpy_start(device, src, dst, chunk, 1);
		ret = driver->ops->memcpy_wait(device);
		if (ret)
			return ret;
	}

	return 0;
}
