// SPDX-License-Identifier: GPL-2.0
/*
 * A dma-buf of a BAR can be mapped for a peer's DMA while the memory of its device is
 * there, and not when it is not.
 *
 * Edu device A and device B, an NVMe controller with power management, are in one IOAS of
 * iommufd.  A mapping goes with B's memory and does not come back by itself, so all is
 * mapped anew: iommufd refuses a dma-buf that is revoked.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/iommufd.h>
#include <linux/pci_regs.h>

#include <libvfio/dma_buf.h>
#include <libvfio/p2p.h>

#include "../kselftest_harness.h"

#define TIMEOUT		120
#define SIZE		SZ_16K

#define D0		0
#define D3HOT		3

/* Device B, and a dma-buf of its BAR */
struct exporter {
	struct p2p p;
	struct vfio_pci_device *b;
	int dmabuf;
};

static int dmabuf_map(struct iommu *iommu, int fd)
{
	struct iommu_ioas_map_file map = {
		.size = sizeof(map),
		.flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE |
			 IOMMU_IOAS_MAP_WRITEABLE,
		.ioas_id = iommu->ioas_id,
		.fd = fd,
		.length = SIZE,
		.iova = IOVA_BAR,
	};

	return ioctl(iommu->iommufd, IOMMU_IOAS_MAP_FILE, &map) ? -errno : 0;
}

static int dmabuf_unmap(struct iommu *iommu)
{
	struct iommu_ioas_unmap unmap = {
		.size = sizeof(unmap),
		.ioas_id = iommu->ioas_id,
		.iova = IOVA_BAR,
		.length = SIZE,
	};

	return ioctl(iommu->iommufd, IOMMU_IOAS_UNMAP, &unmap) ? -errno : 0;
}

static void expect_mapped(struct __test_metadata *_metadata, struct exporter *e)
{
	EXPECT_TRUE(iommu_maps(e->p.bdf_a, IOVA_BAR, e->p.phys));
	EXPECT_TRUE(iommu_maps(e->p.bdf_a, IOVA_BAR + SIZE - SZ_4K, e->p.phys + SIZE - SZ_4K));
	if (e->p.window)
		EXPECT_EQ(1, p2p_lands(&e->p, IOVA_BAR + SZ_4K, SZ_4K));
}

/* It was mapped, and B's memory went since */
static void expect_gone(struct __test_metadata *_metadata, struct exporter *e)
{
	EXPECT_NE(1, iommu_lookup(e->p.bdf_a, IOVA_BAR, NULL));
	EXPECT_NE(1, iommu_lookup(e->p.bdf_a, IOVA_BAR + SIZE - SZ_4K, NULL));
	EXPECT_EQ(0, dmabuf_unmap(e->p.iommu));
}

static void expect_revoked(struct __test_metadata *_metadata, struct exporter *e, int dmabuf)
{
	int ret = dmabuf_map(e->p.iommu, dmabuf);

	EXPECT_EQ(-ENODEV, ret);
	if (!ret)
		EXPECT_EQ(0, dmabuf_unmap(e->p.iommu));
}

/* B's memory is there, and its dma-buf not mapped */
static void expect_back(struct __test_metadata *_metadata, struct exporter *e)
{
	EXPECT_NE(1, iommu_lookup(e->p.bdf_a, IOVA_BAR, NULL));
	if (e->p.window)
		EXPECT_EQ(0, p2p_lands(&e->p, IOVA_BAR + SZ_4K, SZ_4K));
	ASSERT_EQ(0, dmabuf_map(e->p.iommu, e->dmabuf));
	expect_mapped(_metadata, e);
}

/* Opens both devices and exports the BAR, or says what is missing */
static const char *open_exporter(struct exporter *e, const char *bdf_b, int bar)
{
	const char *missing;

	if (dev_prepare(bdf_b))
		return "needs an NVMe controller that vfio-pci can be bound to";
	missing = mode_is_missing(MODE_IOMMUFD, bdf_b);
	if (missing)
		return missing;
	if (p2p_open_mode(&e->p, &want_nvme_pf, MODE_IOMMUFD))
		return NEEDS("an edu device");

	snprintf(e->p.bdf_b, sizeof(e->p.bdf_b), "%s", bdf_b);
	e->p.bar = bar;
	if (pci_bar(bdf_b, bar, &e->p.phys, &e->p.size))
		return "needs an NVMe controller with its registers";

	e->b = vfio_pci_device_init(e->p.bdf_b, e->p.iommu);
	if (!dev_find_cap(e->b, PCI_CAP_ID_PM))
		return "needs a device with power management";
	e->dmabuf = dev_dmabuf_export(e->b, bar, SIZE);
	if (e->dmabuf == -ENOTTY)
		return "this kernel does not export BARs as dma-bufs";

	return NULL;
}

static void close_exporter(struct exporter *e)
{
	close(e->dmabuf);
	vfio_pci_device_cleanup(e->b);
	p2p_close(&e->p);
}

FIXTURE(dmabuf) {
	struct exporter e;
	char bdf[BDF_LEN];
};

static void setup(struct __test_metadata *_metadata, struct exporter *e, char *bdf)
{
	const char *missing;

	if (pci_find(&want_nvme, 0, bdf) < 0)
		SKIP(return, NEEDS("an NVMe controller with memory"));
	missing = open_exporter(e, bdf, 2);
	if (missing)
		SKIP(return, "%s", missing);

	ASSERT_LT(0, e->dmabuf);
	ASSERT_EQ(0, p2p_open_window(&e->p));
	ASSERT_EQ(0, dmabuf_map(e->p.iommu, e->dmabuf));
	expect_mapped(_metadata, e);
}

FIXTURE_SETUP(dmabuf)
{
	setup(_metadata, &self->e, self->bdf);
}

FIXTURE_TEARDOWN(dmabuf)
{
	close_exporter(&self->e);
}

/* While memory is disabled */
TEST_F_TIMEOUT(dmabuf, memory_disabled, TIMEOUT)
{
	vfio_pci_cmd_clear(self->e.b, PCI_COMMAND_MEMORY);
	expect_gone(_metadata, &self->e);
	expect_revoked(_metadata, &self->e, self->e.dmabuf);

	vfio_pci_cmd_set(self->e.b, PCI_COMMAND_MEMORY);
	expect_back(_metadata, &self->e);
}

/* Memory is not disabled if that fails */
TEST_F_TIMEOUT(dmabuf, memory_cannot_be_disabled, TIMEOUT)
{
	char param[BDF_LEN + 8];
	int module, ret, err;
	u16 cmd;

	module = open("pci_write_fail.ko", O_RDONLY | O_CLOEXEC);
	if (module < 0)
		SKIP(return, "needs pci_write_fail.ko in the current directory");

	cmd = vfio_pci_config_readw(self->e.b, PCI_COMMAND) & ~PCI_COMMAND_MEMORY;
	snprintf(param, sizeof(param), "device=%s", self->bdf);
	ASSERT_EQ(0, syscall(SYS_finit_module, module, param, 0));
	ret = pwrite(self->e.b->fd, &cmd, sizeof(cmd),
		     self->e.b->config_space.offset + PCI_COMMAND);
	err = errno;
	EXPECT_EQ(0, syscall(SYS_delete_module, "pci_write_fail", O_NONBLOCK));
	close(module);
	ASSERT_EQ(-1, ret);
	EXPECT_EQ(EIO, err);

	expect_gone(_metadata, &self->e);
	expect_back(_metadata, &self->e);
}

/* While the device is in D3hot */
TEST_F_TIMEOUT(dmabuf, power_state, TIMEOUT)
{
	dev_set_power(self->e.b, D3HOT);
	expect_gone(_metadata, &self->e);
	expect_revoked(_metadata, &self->e, self->e.dmabuf);

	dev_set_power(self->e.b, D0);
	expect_back(_metadata, &self->e);
}

/* During a reset */
TEST_F_TIMEOUT(dmabuf, reset, TIMEOUT)
{
	vfio_pci_device_reset(self->e.b);
	expect_gone(_metadata, &self->e);
	expect_back(_metadata, &self->e);
}

/* In low power, which ends when the device is woken up */
TEST_F_TIMEOUT(dmabuf, wakeup, TIMEOUT)
{
	struct pollfd woken = { .events = POLLIN };
	char status[PATH_MAX];

	snprintf(status, sizeof(status), "/sys/bus/pci/devices/%s/power/runtime_status",
		 self->bdf);
	if (access(status, R_OK))
		SKIP(return, "this kernel has no power management");

	woken.fd = eventfd(0, EFD_CLOEXEC);
	ASSERT_LE(0, woken.fd);
	ASSERT_EQ(0, dev_low_power_with_wakeup(self->e.b, woken.fd));
	expect_gone(_metadata, &self->e);
	expect_revoked(_metadata, &self->e, self->e.dmabuf);

	ASSERT_TRUE(pci_is_suspended(self->bdf));
	EXPECT_EQ(0, poll(&woken, 1, 0));
	vfio_pci_config_readw(self->e.b, PCI_VENDOR_ID);
	EXPECT_EQ(1, poll(&woken, 1, 0));
	expect_back(_metadata, &self->e);

	/* Says what the kernel knows */
	EXPECT_EQ(0, dev_feature_set(self->e.b, VFIO_DEVICE_FEATURE_LOW_POWER_EXIT));
	expect_mapped(_metadata, &self->e);
	close(woken.fd);
}

/*
 * A device in low power, which is resumed for what is done to it and suspended again
 */
static int enable_memory(struct vfio_pci_device *dev)
{
	vfio_pci_cmd_set(dev, PCI_COMMAND_MEMORY);
	return 0;
}

static int set_d0(struct vfio_pci_device *dev)
{
	dev_set_power(dev, D0);
	return 0;
}

static int hot_reset(struct vfio_pci_device *dev)
{
	struct vfio_pci_hot_reset reset = { .argsz = sizeof(reset) };

	return ioctl(dev->fd, VFIO_DEVICE_PCI_HOT_RESET, &reset) ? -errno : 0;
}

FIXTURE(low_power) {
	struct exporter e;
	char bdf[BDF_LEN];
};

FIXTURE_VARIANT(low_power) {
	int (*touch)(struct vfio_pci_device *dev);
};

FIXTURE_VARIANT_ADD(low_power, memory_enabled) { .touch = enable_memory };
FIXTURE_VARIANT_ADD(low_power, power_state) { .touch = set_d0 };
FIXTURE_VARIANT_ADD(low_power, reset) { .touch = __vfio_pci_device_reset };
FIXTURE_VARIANT_ADD(low_power, function_level_reset) { .touch = dev_function_level_reset };
FIXTURE_VARIANT_ADD(low_power, hot_reset) { .touch = hot_reset };

FIXTURE_SETUP(low_power)
{
	setup(_metadata, &self->e, self->bdf);
}

FIXTURE_TEARDOWN(low_power)
{
	close_exporter(&self->e);
}

/* In low power, which does not end by that */
TEST_F_TIMEOUT(low_power, does_not_end, TIMEOUT)
{
	int another;

	ASSERT_EQ(0, dev_feature_set(self->e.b, VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY));
	expect_gone(_metadata, &self->e);
	expect_revoked(_metadata, &self->e, self->e.dmabuf);

	ASSERT_EQ(0, variant->touch(self->e.b));
	expect_revoked(_metadata, &self->e, self->e.dmabuf);

	another = dev_dmabuf_export(self->e.b, 2, SIZE);
	ASSERT_LT(0, another);
	expect_revoked(_metadata, &self->e, another);

	ASSERT_EQ(0, dev_feature_set(self->e.b, VFIO_DEVICE_FEATURE_LOW_POWER_EXIT));
	close(self->e.dmabuf);
	self->e.dmabuf = another;
	expect_back(_metadata, &self->e);
}

/*
 * A physical function, which has to be awake for its virtual functions
 */
#define ENABLE_SRIOV	"/sys/module/vfio_pci/parameters/enable_sriov"

FIXTURE(sriov) {
	struct exporter e;
	char bdf[BDF_LEN];
	char numvfs[PATH_MAX];
	char param[8];
};

/* With the attribute of its own that physical functions have */
static int find_pf(char *bdf, char *numvfs, size_t len)
{
	unsigned int i;

	for (i = 0; pci_find(&want_nvme_pf, i, bdf) >= 0; i++) {
		snprintf(numvfs, len, "/sys/bus/pci/devices/%s/sriov_numvfs", bdf);
		if (!access(numvfs, W_OK))
			return 0;
	}

	return -ENODEV;
}

FIXTURE_SETUP(sriov)
{
	const char *missing;

	if (find_pf(self->bdf, self->numvfs, sizeof(self->numvfs)))
		SKIP(return, NEEDS("an NVMe controller with SR-IOV"));
	missing = open_exporter(&self->e, self->bdf, 0);
	if (missing)
		SKIP(return, "%s", missing);

	ASSERT_LT(0, self->e.dmabuf);
	ASSERT_LT(0, read_text(ENABLE_SRIOV, self->param, sizeof(self->param)));
	ASSERT_EQ(0, write_text(ENABLE_SRIOV, "1"));
	ASSERT_EQ(0, dmabuf_map(self->e.p.iommu, self->e.dmabuf));
	expect_mapped(_metadata, &self->e);
}

FIXTURE_TEARDOWN(sriov)
{
	write_text(self->numvfs, "0");
	write_text(ENABLE_SRIOV, self->param);
	close_exporter(&self->e);
}

/* Enabling SR-IOV ends D3hot */
TEST_F_TIMEOUT(sriov, power_state, TIMEOUT)
{
	dev_set_power(self->e.b, D3HOT);
	expect_gone(_metadata, &self->e);
	expect_revoked(_metadata, &self->e, self->e.dmabuf);

	ASSERT_EQ(0, write_text(self->numvfs, "1"));
	expect_back(_metadata, &self->e);
}

/* And is no matter of memory that is disabled */
TEST_F_TIMEOUT(sriov, memory_disabled, TIMEOUT)
{
	vfio_pci_cmd_clear(self->e.b, PCI_COMMAND_MEMORY);
	expect_gone(_metadata, &self->e);

	ASSERT_EQ(0, write_text(self->numvfs, "1"));
	expect_revoked(_metadata, &self->e, self->e.dmabuf);

	vfio_pci_cmd_set(self->e.b, PCI_COMMAND_MEMORY);
	expect_back(_metadata, &self->e);
}

int main(int argc, char *argv[])
{
	named_devices_init(argc, argv);
	return test_harness_run(argc, argv);
}
