// SPDX-License-Identifier: GPL-2.0
/*
 * Device memory is not mapped for a peer's DMA while it is disabled, in a low power
 * state or being reset, and is again afterwards without anybody asking for it.
 *
 * Every test has edu device A write to an IOVA behind which a BAR of device B was
 * mapped, and looks at the IOMMU's page tables.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/pci_regs.h>

#include "../kselftest_harness.h"
#include "vfio_util.h"

#define TIMEOUT		120

#define NO_DEVICES	"needs an edu device and one with memory in a slot"
#define NO_NIC		"needs an edu device and an e1000e"
#define NO_RESET	"the device cannot be reset"
#define NO_LOOKUP	"the page tables of the IOMMU cannot be read"

#define MAP_SIZE	SZ_64K
/* A register of the e1000e that holds 32 bits and does nothing (RDBAH) */
#define NIC_REG		0x2804

/* Open B, enable its memory and map it for A */
static void *map_b(struct __test_metadata *_metadata, struct p2p *p)
{
	void *bar;

	/* Not p2p_open_window(): the BAR of an e1000e is smaller */
	ASSERT_EQ(0, dev_open(&p->b, p->bdf_b, p->iommu));
	p->window = pci_sysfs_map(p->bdf_b, p->bar, MAP_SIZE);
	ASSERT_NE(NULL, p->window);
	vfio_pci_cmd_set(p->b, PCI_COMMAND_MEMORY);
	bar = p2p_bar(p, 0, MAP_SIZE);
	ASSERT_NE(NULL, bar);
	ASSERT_EQ(0, dma_map(p->iommu, IOVA_BAR, bar, MAP_SIZE, DMA_RW));

	return bar;
}

static void close_both(struct p2p *p)
{
	munmap(p->window, MAP_SIZE);
	p->window = NULL;
	p2p_close(p);
}

/*
 * B is a device with memory, or an e1000e, which has a power management capability and
 * a function level reset
 */
FIXTURE(suspend) {
	struct p2p p;
	void *bar;
	size_t offset;
	int64_t avail;
	bool missing;
};

FIXTURE_VARIANT(suspend) {
	bool nic;
};

FIXTURE_VARIANT_ADD(suspend, memory) { .nic = false };
FIXTURE_VARIANT_ADD(suspend, nic) { .nic = true };

FIXTURE_SETUP(suspend)
{
	int ret = p2p_open(&self->p, variant->nic ? &want_e1000e : &want_mem_slot);

	ASSERT_TRUE(!ret || ret == -ENODEV);
	self->missing = ret;
	if (ret)
		return;

	self->avail = dma_avail(self->p.iommu);
	self->offset = variant->nic ? NIC_REG : 0;
	self->bar = map_b(_metadata, &self->p);
}

FIXTURE_TEARDOWN(suspend)
{
	if (self->missing)
		return;
	close_both(&self->p);
}

static bool is_mapped(struct p2p *p, uint64_t iova)
{
	return iommu_lookup(p->bdf_a, iova, NULL) == 1 &&
	       iommu_lookup(p->bdf_a, iova + MAP_SIZE - SZ_4K, NULL) == 1;
}

static bool is_gone(struct p2p *p, uint64_t iova)
{
	return iommu_lookup(p->bdf_a, iova, NULL) != 1 &&
	       iommu_lookup(p->bdf_a, iova + MAP_SIZE - SZ_4K, NULL) != 1;
}

#define expect_mapped()								\
do {										\
	EXPECT_TRUE(is_mapped(&self->p, IOVA_BAR));				\
	EXPECT_EQ(1, p2p_lands(&self->p, IOVA_BAR + self->offset, self->offset)); \
} while (0)

/* What cannot be seen at the moment has not been written to either */
#define expect_gone()								\
do {										\
	EXPECT_TRUE(is_gone(&self->p, IOVA_BAR));				\
	EXPECT_NE(1, p2p_lands(&self->p, IOVA_BAR + self->offset, self->offset)); \
} while (0)

static int find_cap(struct vfio_pci_device *dev, u8 id)
{
	int pos = vfio_pci_config_readb(dev, PCI_CAPABILITY_LIST), n;

	for (n = 0; pos && n < 48; n++) {
		if (vfio_pci_config_readb(dev, pos) == id)
			return pos;
		pos = vfio_pci_config_readb(dev, pos + 1);
	}

	return 0;
}

static void set_power(struct vfio_pci_device *dev, int cap, u16 state)
{
	u16 ctrl = vfio_pci_config_readw(dev, cap + PCI_PM_CTRL);

	vfio_pci_config_writew(dev, cap + PCI_PM_CTRL,
			       (ctrl & ~PCI_PM_CTRL_STATE_MASK) | state);
}

static int feature(struct vfio_pci_device *dev, u32 which)
{
	struct vfio_device_feature arg = {
		.argsz = sizeof(arg),
		.flags = VFIO_DEVICE_FEATURE_SET | which,
	};

	return ioctl(dev->fd, VFIO_DEVICE_FEATURE, &arg) ? -errno : 0;
}

/* G1: memory decode is switched off */
TEST_F_TIMEOUT(suspend, disabled_by_the_command_register, TIMEOUT)
{
	int i;

	if (self->missing)
		SKIP(return, NO_DEVICES);

	expect_mapped();
	for (i = 0; i < 3; i++) {
		vfio_pci_cmd_clear(self->p.b, PCI_COMMAND_MEMORY);
		expect_gone();
		/* Once more is no more, and one is enough to end it */
		vfio_pci_cmd_clear(self->p.b, PCI_COMMAND_MEMORY);
		EXPECT_TRUE(is_gone(&self->p, IOVA_BAR));
		vfio_pci_cmd_set(self->p.b, PCI_COMMAND_MEMORY);
		expect_mapped();
	}
}

/* G1: a power state in which memory need not answer */
TEST_F_TIMEOUT(suspend, power_state_d3hot, TIMEOUT)
{
	int cap;

	if (self->missing)
		SKIP(return, NO_DEVICES);
	cap = find_cap(self->p.b, PCI_CAP_ID_PM);
	if (!cap)
		SKIP(return, "the device has no power states");

	set_power(self->p.b, cap, 3);
	expect_gone();
	/* Memory decode does not help in D3hot */
	vfio_pci_cmd_clear(self->p.b, PCI_COMMAND_MEMORY);
	vfio_pci_cmd_set(self->p.b, PCI_COMMAND_MEMORY);
	expect_gone();

	set_power(self->p.b, cap, 0);
	vfio_pci_cmd_set(self->p.b, PCI_COMMAND_MEMORY);
	expect_mapped();

	/* Disabled in D3hot: both have to end */
	set_power(self->p.b, cap, 3);
	vfio_pci_cmd_clear(self->p.b, PCI_COMMAND_MEMORY);
	set_power(self->p.b, cap, 0);
	expect_gone();
	vfio_pci_cmd_set(self->p.b, PCI_COMMAND_MEMORY);
	expect_mapped();
}

/* G1: low power, which lasts until its exit whatever else is enabled */
TEST_F_TIMEOUT(suspend, low_power, TIMEOUT)
{
	int ret;

	if (self->missing)
		SKIP(return, NO_DEVICES);

	ret = feature(self->p.b, VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY);
	if (ret == -ENOTTY)
		SKIP(return, "no low power for this device");
	ASSERT_EQ(0, ret);
	EXPECT_TRUE(is_gone(&self->p, IOVA_BAR));
	EXPECT_EQ(-EINVAL, feature(self->p.b, VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY));
	EXPECT_TRUE(is_gone(&self->p, IOVA_BAR));
	EXPECT_EQ(0, feature(self->p.b, VFIO_DEVICE_FEATURE_LOW_POWER_EXIT));
	expect_mapped();
}

/* Resets, in a thread of their own */
struct reset {
	pthread_t thread;
	int (*how)(struct p2p *p);
	struct p2p *p;
	int ret;
	bool done;
};

static int by_ioctl(struct p2p *p)
{
	return __vfio_pci_device_reset(p->b);
}

static int by_hot_reset(struct p2p *p)
{
	return dev_hot_reset(p->b);
}

static int by_sysfs(struct p2p *p)
{
	char path[128];

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/reset", p->bdf_b);
	return write_text(path, "1");
}

static int by_config(struct p2p *p)
{
	int cap = find_cap(p->b, PCI_CAP_ID_EXP);
	u16 ctl;

	if (!cap || !(vfio_pci_config_readl(p->b, cap + PCI_EXP_DEVCAP) & PCI_EXP_DEVCAP_FLR))
		return -ENOTTY;
	ctl = vfio_pci_config_readw(p->b, cap + PCI_EXP_DEVCTL);
	vfio_pci_config_writew(p->b, cap + PCI_EXP_DEVCTL, ctl | PCI_EXP_DEVCTL_BCR_FLR);
	return 0;
}

static void *reset_thread(void *arg)
{
	struct reset *r = arg;

	r->ret = r->how(r->p);
	__atomic_store_n(&r->done, true, __ATOMIC_RELEASE);
	return NULL;
}

/* Resets B and counts how often its memory was seen not to be mapped meanwhile */
static int reset_and_look(struct p2p *p, int (*how)(struct p2p *p), int *gone)
{
	struct reset r = { .how = how, .p = p };

	*gone = 0;
	if (pthread_create(&r.thread, NULL, reset_thread, &r))
		return -ENOMEM;
	do {
		*gone += iommu_lookup(p->bdf_a, IOVA_BAR, NULL) == 0;
		usleep(1000);
	} while (!__atomic_load_n(&r.done, __ATOMIC_ACQUIRE));
	pthread_join(r.thread, NULL);

	return r.ret;
}

FIXTURE(reset) {
	struct p2p p;
	void *bar;
	size_t offset;
	bool missing;
};

FIXTURE_VARIANT(reset) {
	bool nic;
	int (*how)(struct p2p *p);
};

/* Where there is no quicker way the reset is one of the bus and takes a second or more */
FIXTURE_VARIANT_ADD(reset, ioctl) { .how = by_ioctl };
FIXTURE_VARIANT_ADD(reset, ioctl_flr) { .how = by_ioctl, .nic = true };
FIXTURE_VARIANT_ADD(reset, hot_reset) { .how = by_hot_reset };
FIXTURE_VARIANT_ADD(reset, sysfs) { .how = by_sysfs };
FIXTURE_VARIANT_ADD(reset, sysfs_flr) { .how = by_sysfs, .nic = true };
FIXTURE_VARIANT_ADD(reset, config_flr) { .how = by_config, .nic = true };

FIXTURE_SETUP(reset)
{
	int ret = p2p_open(&self->p, variant->nic ? &want_e1000e : &want_mem_slot);

	ASSERT_TRUE(!ret || ret == -ENODEV);
	self->missing = ret;
	if (ret)
		return;

	self->offset = variant->nic ? NIC_REG : 0;
	self->bar = map_b(_metadata, &self->p);
}

FIXTURE_TEARDOWN(reset)
{
	if (self->missing)
		return;
	close_both(&self->p);
}

/* G1: not mapped in the reset, mapped after it */
TEST_F_TIMEOUT(reset, suspended_meanwhile, TIMEOUT)
{
	int ret, gone, seen = 0, i;

	if (self->missing)
		SKIP(return, NO_DEVICES);
	if (iommu_lookup(self->p.bdf_a, IOVA_BAR, NULL) < 0)
		SKIP(return, NO_LOOKUP);

	expect_mapped();
	/* A reset may be over before anybody has looked */
	for (i = 0; i < 2 || (i < 20 && !seen); i++) {
		ret = reset_and_look(&self->p, variant->how, &gone);
		if (ret == -ENOTTY || ret == -EINVAL || ret == -ENOENT)
			SKIP(return, NO_RESET);
		EXPECT_EQ(0, ret);
		seen += gone;
		expect_mapped();
	}
	printf("# %d resets, not mapped %d times\n", i, seen);
	EXPECT_LT(0, seen);
}

/* G1: a reset does not enable what is disabled */
TEST_F_TIMEOUT(reset, stays_suspended_if_disabled, TIMEOUT)
{
	int ret, gone;

	if (self->missing)
		SKIP(return, NO_DEVICES);

	vfio_pci_cmd_clear(self->p.b, PCI_COMMAND_MEMORY);
	ret = reset_and_look(&self->p, variant->how, &gone);
	if (ret == -ENOTTY || ret == -EINVAL || ret == -ENOENT)
		SKIP(return, NO_RESET);
	EXPECT_EQ(0, ret);
	EXPECT_TRUE(is_gone(&self->p, IOVA_BAR));
	vfio_pci_cmd_set(self->p.b, PCI_COMMAND_MEMORY);
	expect_mapped();
}

/* D3: the mapping is the user's, whatever there is behind it */
TEST_F_TIMEOUT(suspend, unmap_while_suspended, TIMEOUT)
{
	int64_t avail = self->avail;

	if (self->missing)
		SKIP(return, NO_DEVICES);

	vfio_pci_cmd_clear(self->p.b, PCI_COMMAND_MEMORY);
	EXPECT_TRUE(is_gone(&self->p, IOVA_BAR));
	EXPECT_EQ(avail - 1, dma_avail(self->p.iommu));
	EXPECT_EQ(-EEXIST, dma_map(self->p.iommu, IOVA_BAR, self->p.scratch, SZ_4K, DMA_RW));
	EXPECT_EQ(MAP_SIZE, dma_unmap(self->p.iommu, IOVA_BAR, MAP_SIZE));
	EXPECT_EQ(avail, dma_avail(self->p.iommu));

	/* The IOVA is free, and stays what it is mapped to now */
	EXPECT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, self->p.scratch, SZ_4K, DMA_RW));
	vfio_pci_cmd_set(self->p.b, PCI_COMMAND_MEMORY);
	EXPECT_NE(1, p2p_lands(&self->p, IOVA_BAR + self->offset, self->offset));
	EXPECT_EQ(SZ_4K, dma_unmap(self->p.iommu, IOVA_BAR, SZ_4K));
	EXPECT_TRUE(is_gone(&self->p, IOVA_BAR));
}

/* D3: and after the release */
TEST_F_TIMEOUT(suspend, unmap_after_the_release, TIMEOUT)
{
	int64_t avail = self->avail;

	if (self->missing)
		SKIP(return, NO_DEVICES);

	p2p_release(&self->p, self->bar, MAP_SIZE);
	expect_gone();
	EXPECT_EQ(avail - 1, dma_avail(self->p.iommu));
	EXPECT_EQ(-EEXIST, dma_map(self->p.iommu, IOVA_BAR, self->p.scratch, SZ_4K, DMA_RW));
	EXPECT_EQ(MAP_SIZE, dma_unmap(self->p.iommu, IOVA_BAR, MAP_SIZE));
	EXPECT_EQ(0, dma_unmap(self->p.iommu, IOVA_BAR, MAP_SIZE));
	EXPECT_EQ(avail, dma_avail(self->p.iommu));
	EXPECT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, self->p.scratch, SZ_4K, DMA_RW));
}

/* D3: released while it is suspended, it does not come back when it is enabled */
TEST_F_TIMEOUT(suspend, reopening_brings_nothing_back, TIMEOUT)
{
	if (self->missing)
		SKIP(return, NO_DEVICES);

	vfio_pci_cmd_clear(self->p.b, PCI_COMMAND_MEMORY);
	p2p_release(&self->p, self->bar, MAP_SIZE);
	ASSERT_EQ(0, dev_open(&self->p.b, self->p.bdf_b, self->p.iommu));
	vfio_pci_cmd_set(self->p.b, PCI_COMMAND_MEMORY);
	expect_gone();

	self->bar = p2p_bar(&self->p, 0, MAP_SIZE);
	ASSERT_NE(NULL, self->bar);
	EXPECT_EQ(-EEXIST, dma_map(self->p.iommu, IOVA_BAR, self->bar, MAP_SIZE, DMA_RW));
	/* A new mapping beside the dead one, which shares nothing with it */
	EXPECT_EQ(0, dma_map(self->p.iommu, IOVA_BAR + SZ_1M, self->bar, MAP_SIZE, DMA_RW));
	vfio_pci_cmd_clear(self->p.b, PCI_COMMAND_MEMORY);
	EXPECT_TRUE(is_gone(&self->p, IOVA_BAR + SZ_1M));
	vfio_pci_cmd_set(self->p.b, PCI_COMMAND_MEMORY);
	EXPECT_TRUE(is_mapped(&self->p, IOVA_BAR + SZ_1M));
	expect_gone();
	EXPECT_EQ(MAP_SIZE, dma_unmap(self->p.iommu, IOVA_BAR, MAP_SIZE));
	EXPECT_EQ(1, p2p_lands(&self->p, IOVA_BAR + SZ_1M + self->offset, self->offset));
	EXPECT_EQ(MAP_SIZE, dma_unmap(self->p.iommu, IOVA_BAR + SZ_1M, MAP_SIZE));
	EXPECT_EQ(self->avail, dma_avail(self->p.iommu));
}

/* E11: as on any kernel */
TEST_F_TIMEOUT(suspend, disabled_memory_cannot_be_mapped, TIMEOUT)
{
	if (self->missing)
		SKIP(return, NO_DEVICES);

	vfio_pci_cmd_clear(self->p.b, PCI_COMMAND_MEMORY);
	EXPECT_EQ(-EFAULT, dma_map(self->p.iommu, IOVA_BAR + SZ_1M, self->bar, MAP_SIZE,
				   DMA_RW));
	EXPECT_EQ(self->avail - 1, dma_avail(self->p.iommu));
	vfio_pci_cmd_set(self->p.b, PCI_COMMAND_MEMORY);
	EXPECT_TRUE(is_gone(&self->p, IOVA_BAR + SZ_1M));
	expect_mapped();
}

/* D3, D4: RAM on both sides of device memory in one mapping */
TEST_F_TIMEOUT(suspend, ram_beside_it_goes_on_working, TIMEOUT)
{
	const uint64_t iova = IOVA_BAR + SZ_1M;
	long before = proc_locked_kb();
	uint32_t *low, *high;
	void *area, *bar;

	if (self->missing)
		SKIP(return, NO_DEVICES);

	area = mmap(NULL, 3 * MAP_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		    -1, 0);
	ASSERT_NE(MAP_FAILED, area);
	bar = bar_mmap_at(area + MAP_SIZE, self->p.b->fd, self->p.bar, PROT_READ | PROT_WRITE,
			  0, MAP_SIZE);
	ASSERT_NE(NULL, bar);
	low = area;
	high = area + 3 * MAP_SIZE - SZ_4K;
	ASSERT_EQ(0, dma_map(self->p.iommu, iova, area, 3 * MAP_SIZE, DMA_RW));
	EXPECT_EQ(before + 128, proc_locked_kb());
	EXPECT_TRUE(is_mapped(&self->p, iova + MAP_SIZE));

	vfio_pci_cmd_clear(self->p.b, PCI_COMMAND_MEMORY);
	EXPECT_TRUE(is_gone(&self->p, iova + MAP_SIZE));
	EXPECT_TRUE(is_mapped(&self->p, iova));
	EXPECT_TRUE(is_mapped(&self->p, iova + 2 * MAP_SIZE));
	EXPECT_EQ(0, p2p_store(&self->p, iova, 0x1111));
	EXPECT_EQ(0x1111, *low);
	EXPECT_EQ(0, p2p_store(&self->p, iova + 3 * MAP_SIZE - SZ_4K, 0x2222));
	EXPECT_EQ(0x2222, *high);

	vfio_pci_cmd_set(self->p.b, PCI_COMMAND_MEMORY);
	EXPECT_TRUE(is_mapped(&self->p, iova + MAP_SIZE));

	/* Once unmapped while it is there, and once after the release */
	munmap(bar, MAP_SIZE);
	p2p_release(&self->p, self->bar, MAP_SIZE);
	EXPECT_TRUE(is_gone(&self->p, iova + MAP_SIZE));
	EXPECT_EQ(0, p2p_store(&self->p, iova, 0x3333));
	EXPECT_EQ(0x3333, *low);
	EXPECT_EQ(0, p2p_store(&self->p, iova + 3 * MAP_SIZE - SZ_4K, 0x4444));
	EXPECT_EQ(0x4444, *high);
	EXPECT_EQ(before + 128, proc_locked_kb());
	EXPECT_EQ(3 * MAP_SIZE, dma_unmap(self->p.iommu, iova, 3 * MAP_SIZE));
	EXPECT_EQ(before, proc_locked_kb());
	EXPECT_TRUE(is_gone(&self->p, iova));
	EXPECT_TRUE(is_gone(&self->p, iova + 2 * MAP_SIZE));
	EXPECT_EQ(self->avail - 1, dma_avail(self->p.iommu));
}

/* D11: several vmas in one mapping take an entry each, but not if they adjoin */
TEST_F_TIMEOUT(suspend, ranges_are_counted, TIMEOUT)
{
	const uint64_t iova = IOVA_BAR + SZ_1M;
	void *area;
	int i;

	if (self->missing)
		SKIP(return, NO_DEVICES);

	area = mmap(NULL, MAP_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, area);
	for (i = 0; i < 16; i++)
		ASSERT_NE(NULL, bar_mmap_at(area + i * SZ_4K, self->p.b->fd, self->p.bar,
					    PROT_READ | (i & 1 ? PROT_WRITE : 0), i * SZ_4K,
					    SZ_4K));
	ASSERT_EQ(0, dma_map(self->p.iommu, iova, area, MAP_SIZE, DMA_RO));
	EXPECT_EQ(self->avail - 2, dma_avail(self->p.iommu));
	EXPECT_TRUE(is_mapped(&self->p, iova));
	EXPECT_EQ(MAP_SIZE, dma_unmap(self->p.iommu, iova, MAP_SIZE));
	EXPECT_EQ(self->avail - 1, dma_avail(self->p.iommu));

	/* The same page again and again */
	for (i = 0; i < 16; i++)
		ASSERT_NE(NULL, bar_mmap_at(area + i * SZ_4K, self->p.b->fd, self->p.bar,
					    PROT_READ, 0, SZ_4K));
	ASSERT_EQ(0, dma_map(self->p.iommu, iova, area, MAP_SIZE, DMA_RO));
	EXPECT_EQ(self->avail - 17, dma_avail(self->p.iommu));
	EXPECT_EQ(MAP_SIZE, dma_unmap(self->p.iommu, iova, MAP_SIZE));
	EXPECT_EQ(self->avail - 1, dma_avail(self->p.iommu));
}

TEST_HARNESS_MAIN
