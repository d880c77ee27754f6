// SPDX-License-Identifier: GPL-2.0
/*
 * Device memory that a mediated device pins, and the memory of mediated devices.
 *
 * These need the mdev_pin module, loaded or in the current directory as
 * mdev_pin.ko, which stands in for a vendor driver: write an
 * IOVA to its device to pin that page, read three numbers back (pinned, told to
 * unpin, physical address).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../kselftest_harness.h"
#include "vfio_util.h"

#define UUID		"83b8f4f2-509f-382f-3c1e-e6bfe0fa1001"
#define TYPE		"/sys/class/mdev_pin/mdev_pin/mdev_supported_types/mdev_pin-1/"
#define MDEV		"/sys/bus/mdev/devices/" UUID
#define NEEDS		"needs the mdev_pin module, an edu device and one with memory"

struct pin_info {
	uint64_t pinned;
	uint64_t told;
	uint64_t phys;
};

FIXTURE(mdev) {
	struct p2p p;
	int ret;
	bool created;
	struct iommu *iommu;
	struct vfio_pci_device *mdev;
	void *bar;
};

/* Unless it is there already.  The first test to find the file loads it. */
static void load_module(void)
{
	int fd = open("mdev_pin.ko", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	if (syscall(SYS_finit_module, fd, "", 0) && errno != EEXIST)
		perror("# mdev_pin.ko");
	close(fd);
}

/* What libvfio does for devices on the PCI bus */
static int mdev_open(struct vfio_pci_device **mdev, struct iommu *iommu)
{
	char link[128], path[64];
	ssize_t len;
	int ret;

	len = readlink(MDEV "/iommu_group", link, sizeof(link) - 1);
	if (len < 0)
		return -errno;
	link[len] = 0;

	*mdev = dev_alloc(UUID, iommu);
	snprintf(path, sizeof(path), "/dev/vfio%.32s", strrchr(link, '/'));
	(*mdev)->group_fd = open(path, O_RDWR | O_CLOEXEC);
	if ((*mdev)->group_fd < 0)
		return -errno;

	ret = group_attach(*mdev);
	if (ret)
		return ret;

	__vfio_pci_group_get_device_fd(*mdev, UUID, NULL);
	return (*mdev)->fd < 0 ? -errno : 0;
}

static int pin(struct vfio_pci_device *mdev, uint64_t iova)
{
	return pwrite(mdev->fd, &iova, sizeof(iova), 0) == sizeof(iova) ? 0 : -errno;
}

static struct pin_info pin_info(struct vfio_pci_device *mdev)
{
	struct pin_info info = {};

	if (pread(mdev->fd, &info, sizeof(info), 0) != sizeof(info))
		perror("# mdev_pin");

	return info;
}

FIXTURE_SETUP(mdev)
{
	self->ret = p2p_open(&self->p, &want_mem);
	ASSERT_TRUE(!self->ret || self->ret == -ENODEV);
	load_module();
	if (self->ret || access(TYPE "create", W_OK))
		return;

	ASSERT_EQ(0, write_text(TYPE "create", UUID));
	self->created = true;
	ASSERT_EQ(0, p2p_open_peer(&self->p));
	self->bar = p2p_bar(&self->p, 0, SZ_64K);
	ASSERT_NE(NULL, self->bar);
}

FIXTURE_TEARDOWN(mdev)
{
	dev_close(&self->mdev);
	iommu_close(&self->iommu);
	if (self->created)
		write_text(MDEV "/remove", "1");
	if (!self->ret)
		p2p_close(&self->p);
}

/* Give B up: every reference to it that this process has */
static void release_peer(struct p2p *p, void *bar, size_t size)
{
	munmap(bar, size);
	dev_close(&p->b);
}

/* In a container that it has to itself at first */
static void open_alone(struct __test_metadata *_metadata, struct _test_data_mdev *self)
{
	self->iommu = iommu_init(MODE_VFIO_TYPE1V2_IOMMU);
	ASSERT_EQ(0, mdev_open(&self->mdev, self->iommu));
}

/* And a device that may join it */
static bool open_alone_with_another(struct __test_metadata *_metadata,
				    struct _test_data_mdev *self, char *bdf)
{
	if (!self->created)
		SKIP(return false, NEEDS);
	if (pci_find(&want_testdev, 0, bdf) < 0)
		SKIP(return false, "needs a pci-testdev");

	open_alone(_metadata, self);
	return true;
}

static void map_and_pin(struct __test_metadata *_metadata, struct _test_data_mdev *self)
{
	ASSERT_EQ(0, dma_map(self->iommu, IOVA_BAR, self->bar, SZ_64K, DMA_RW));
	ASSERT_EQ(0, pin(self->mdev, IOVA_BAR));
}

/* D9: a container of its own, without an IOMMU: the pin is the only use of the BAR */
TEST_F_TIMEOUT(mdev, pinned_bar_is_unpinned_and_unmapped_on_release, 120)
{
	struct pin_info info;

	if (!self->created)
		SKIP(return, NEEDS);
	open_alone(_metadata, self);

	ASSERT_EQ(0, dma_map(self->iommu, IOVA_BAR, self->bar, SZ_64K, DMA_RW));
	ASSERT_EQ(0, pin(self->mdev, IOVA_BAR + SZ_4K));
	info = pin_info(self->mdev);
	EXPECT_EQ(1, info.pinned);
	EXPECT_EQ(self->p.phys + SZ_4K, info.phys);

	release_peer(&self->p, self->bar, SZ_64K);

	info = pin_info(self->mdev);
	EXPECT_EQ(0, info.pinned);
	EXPECT_EQ(1, info.told);
	EXPECT_EQ(0, dma_unmap(self->iommu, IOVA_BAR, SZ_64K));
	EXPECT_NE(0, pin(self->mdev, IOVA_BAR + SZ_4K));
}

/* D9: pinned and mapped to an IOMMU too */
TEST_F_TIMEOUT(mdev, pinned_and_mapped_bar_is_dropped_on_release, 120)
{
	struct pin_info info;

	if (!self->created)
		SKIP(return, NEEDS);
	ASSERT_EQ(0, mdev_open(&self->mdev, self->p.iommu));

	ASSERT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, self->bar, SZ_64K, DMA_RW));
	ASSERT_EQ(0, pin(self->mdev, IOVA_BAR));
	EXPECT_EQ(1, p2p_lands(&self->p, IOVA_BAR, 0));

	release_peer(&self->p, self->bar, SZ_64K);

	info = pin_info(self->mdev);
	EXPECT_EQ(0, info.pinned);
	EXPECT_EQ(1, info.told);
	EXPECT_NE(1, iommu_lookup(self->p.bdf_a, IOVA_BAR, NULL));
	EXPECT_EQ(0, p2p_lands(&self->p, IOVA_BAR, 0));
	EXPECT_EQ(0, dma_unmap(self->p.iommu, IOVA_BAR, SZ_64K));
}

/* D9: the user's own unmapping works as for RAM, and leaves the release nothing to do */
TEST_F_TIMEOUT(mdev, pinned_bar_is_unpinned_on_unmap, 120)
{
	struct pin_info info;

	if (!self->created)
		SKIP(return, NEEDS);
	open_alone(_metadata, self);

	map_and_pin(_metadata, self);
	EXPECT_EQ(SZ_64K, dma_unmap(self->iommu, IOVA_BAR, SZ_64K));
	info = pin_info(self->mdev);
	EXPECT_EQ(0, info.pinned);
	EXPECT_EQ(1, info.told);

	release_peer(&self->p, self->bar, SZ_64K);
	info = pin_info(self->mdev);
	EXPECT_EQ(1, info.told);
}

/* D9, E11: a pin that cannot be had is an error, not a page */
TEST_F_TIMEOUT(mdev, pin_of_disabled_memory_is_refused, 120)
{
	if (!self->created)
		SKIP(return, NEEDS);
	open_alone(_metadata, self);

	ASSERT_EQ(0, dma_map(self->iommu, IOVA_BAR, self->bar, SZ_64K, DMA_RW));
	vfio_pci_cmd_clear(self->p.b, PCI_COMMAND_MEMORY);
	EXPECT_EQ(-EFAULT, pin(self->mdev, IOVA_BAR));
	EXPECT_EQ(0, pin_info(self->mdev).pinned);
	vfio_pci_cmd_set(self->p.b, PCI_COMMAND_MEMORY);
	EXPECT_EQ(0, pin(self->mdev, IOVA_BAR));

	release_peer(&self->p, self->bar, SZ_64K);
}

/* D7, D3: not mapped to any IOMMU, until a group joins that has one */
TEST_F_TIMEOUT(mdev, group_that_joins_later_gets_the_bar_mapped, 120)
{
	struct vfio_pci_device *late;
	char bdf[BDF_LEN];

	if (!open_alone_with_another(_metadata, self, bdf))
		return;
	map_and_pin(_metadata, self);

	ASSERT_EQ(0, dev_open(&late, bdf, self->iommu));
	EXPECT_TRUE(iommu_maps(bdf, IOVA_BAR, self->p.phys));
	EXPECT_TRUE(iommu_maps(bdf, IOVA_BAR + SZ_64K - SZ_4K,
			       self->p.phys + SZ_64K - SZ_4K));

	release_peer(&self->p, self->bar, SZ_64K);
	EXPECT_NE(1, iommu_lookup(bdf, IOVA_BAR, NULL));
	EXPECT_EQ(0, pin_info(self->mdev).pinned);
	EXPECT_EQ(0, dma_unmap(self->iommu, IOVA_BAR, SZ_64K));
	dev_close(&late);
}

/* D7: the IOMMU group leaves, the mediated device and its pin stay */
TEST_F_TIMEOUT(mdev, group_that_leaves_keeps_the_pin, 120)
{
	struct vfio_pci_device *late;
	char bdf[BDF_LEN];

	if (!open_alone_with_another(_metadata, self, bdf))
		return;
	ASSERT_EQ(0, dev_open(&late, bdf, self->iommu));
	map_and_pin(_metadata, self);

	dev_close(&late);
	EXPECT_EQ(1, pin_info(self->mdev).pinned);

	release_peer(&self->p, self->bar, SZ_64K);
	EXPECT_EQ(0, pin_info(self->mdev).pinned);
	EXPECT_EQ(1, pin_info(self->mdev).told);
	EXPECT_EQ(0, dma_unmap(self->iommu, IOVA_BAR, SZ_64K));
}

/* B2: a bus driver that has not opted in */
TEST_F_TIMEOUT(mdev, memory_of_a_mediated_device_is_refused, 120)
{
	void *mem;

	if (!self->created)
		SKIP(return, NEEDS);
	ASSERT_EQ(0, mdev_open(&self->mdev, self->p.iommu));
	mem = mmap(NULL, SZ_4K, PROT_READ | PROT_WRITE, MAP_SHARED, self->mdev->fd, 0);
	ASSERT_NE(MAP_FAILED, mem);

	EXPECT_EQ(-EOPNOTSUPP, dma_map(self->p.iommu, IOVA_BAR, mem, SZ_4K, DMA_RW));
	EXPECT_NE(1, iommu_lookup(self->p.bdf_a, IOVA_BAR, NULL));
	munmap(mem, SZ_4K);
}

TEST_HARNESS_MAIN
