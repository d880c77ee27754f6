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
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/pci_regs.h>

#include <libvfio/memory.h>
#include <libvfio/p2p.h>

#include "../kselftest_harness.h"

#define TIMEOUT		120
/* Where A does so many transfers that they are what takes the time */
#define LONG_TIMEOUT	1800

#define NO_DEVICES	"needs an edu device and one with memory in a slot"
#define NO_NIC		"needs an edu device and an e1000e"
#define NO_NVME		NEEDS("an edu device and an NVMe controller with memory")
#define NO_NEIGHBOUR	NEEDS("an edu device and two with memory")
#define NO_SLOT		NEEDS("an edu device and two functions with memory in one slot")
#define NO_EDUS		NEEDS("two edu devices and one with memory")
#define NO_VF		NEEDS("an edu device and an NVMe controller with SR-IOV")
#define NO_RESET	"the device cannot be reset"
#define NO_LOOKUP	"the page tables of the IOMMU cannot be read"
#define SLOW_LOOKUP	"reading the page tables takes longer than a reset"

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
	s64 avail;
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
	if (ret)
		SKIP(return, NO_DEVICES);

	self->avail = dma_avail(self->p.iommu);
	self->offset = variant->nic ? NIC_REG : 0;
	self->bar = map_b(_metadata, &self->p);
}

FIXTURE_TEARDOWN(suspend)
{
	close_both(&self->p);
}

static bool is_mapped(struct p2p *p, u64 iova)
{
	return iommu_lookup(p->bdf_a, iova, NULL) == 1 &&
	       iommu_lookup(p->bdf_a, iova + MAP_SIZE - SZ_4K, NULL) == 1;
}

static bool is_gone(struct p2p *p, u64 iova)
{
	return iommu_lookup(p->bdf_a, iova, NULL) != 1 &&
	       iommu_lookup(p->bdf_a, iova + MAP_SIZE - SZ_4K, NULL) != 1;
}

#define expect_mapped_at(_offset)						\
do {										\
	size_t __offset = _offset;						\
										\
	EXPECT_TRUE(is_mapped(&self->p, IOVA_BAR));				\
	EXPECT_EQ(1, p2p_lands(&self->p, IOVA_BAR + __offset, __offset));	\
} while (0)

#define expect_mapped()		expect_mapped_at(self->offset)

/* What cannot be seen at the moment has not been written to either */
#define expect_gone()								\
do {										\
	EXPECT_TRUE(is_gone(&self->p, IOVA_BAR));				\
	EXPECT_NE(1, p2p_lands(&self->p, IOVA_BAR + self->offset, self->offset)); \
} while (0)

/*
 * Many transfers.  An edu keeps what it has read last, so that it can write that again and
 * again.  A transfer takes it 100 ms, in which nobody has to look after it.
 */
#define EDU_DMA_SRC	0x80
#define EDU_DMA_DST	0x88
#define EDU_DMA_COUNT	0x90
#define EDU_DMA_CMD	0x98
#define EDU_DMA_RUN	0x1
#define EDU_DMA_STORE	0x2
#define EDU_BUFFER	0x40000

#define edu_reg(_p, _reg)	((u64 *)((_p)->a->bars[0].vaddr + (_reg)))
#define edu_read(_p, _reg)	__atomic_load_n(edu_reg(_p, _reg), __ATOMIC_RELAXED)
#define edu_write(_p, _reg, _val)						\
	__atomic_store_n(edu_reg(_p, _reg), (u64)(_val), __ATOMIC_RELAXED)

static bool edu_is_busy(struct p2p *p)
{
	return edu_read(p, EDU_DMA_CMD) & EDU_DMA_RUN;
}

/* Have A write @val in the transfers that it starts from now on */
static int edu_load(struct p2p *p, u32 val)
{
	return p2p_store(p, IOVA_SCRATCH + SZ_2K, val);
}

/* It writes when the 100 ms are over, not before */
static void edu_start(struct p2p *p, u64 iova)
{
	edu_write(p, EDU_DMA_SRC, EDU_BUFFER);
	edu_write(p, EDU_DMA_DST, iova);
	edu_write(p, EDU_DMA_COUNT, sizeof(u32));
	edu_write(p, EDU_DMA_CMD, EDU_DMA_RUN | EDU_DMA_STORE);
}

/* Have A write @val to @n words from @iova on, each with a transfer of its own */
static int store_each(struct p2p *p, u64 iova, u32 val, int n)
{
	int ret = edu_load(p, val), i, ms;

	for (i = 0; !ret && i < n; i++) {
		edu_start(p, iova + i * sizeof(val));
		usleep(100000);
		for (ms = 0; edu_is_busy(p); ms++) {
			if (ms == 10000)
				return -ETIMEDOUT;
			usleep(1000);
		}
	}

	return ret;
}

static void fill(struct p2p *p, u32 val, int n)
{
	while (n--)
		mmio_write32(p->window + n * sizeof(val), val);
}

/* How many words of B's memory are @val? */
static int count(struct p2p *p, u32 val, int n)
{
	int found = 0;

	while (n--)
		found += mmio_read32(p->window + n * sizeof(val)) == val;

	return found;
}

/* Memory decode is switched off */
TEST_F_TIMEOUT(suspend, disabled_by_the_command_register, TIMEOUT)
{
	int i;

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

/* A power state in which memory need not answer */
TEST_F_TIMEOUT(suspend, power_state_d3hot, TIMEOUT)
{
	if (!dev_find_cap(self->p.b, PCI_CAP_ID_PM))
		SKIP(return, "the device has no power states");

	dev_set_power(self->p.b, 3);
	expect_gone();
	/* Memory decode does not help in D3hot */
	vfio_pci_cmd_clear(self->p.b, PCI_COMMAND_MEMORY);
	vfio_pci_cmd_set(self->p.b, PCI_COMMAND_MEMORY);
	expect_gone();

	dev_set_power(self->p.b, 0);
	vfio_pci_cmd_set(self->p.b, PCI_COMMAND_MEMORY);
	expect_mapped();

	/* Disabled in D3hot: both have to end */
	dev_set_power(self->p.b, 3);
	vfio_pci_cmd_clear(self->p.b, PCI_COMMAND_MEMORY);
	dev_set_power(self->p.b, 0);
	expect_gone();
	vfio_pci_cmd_set(self->p.b, PCI_COMMAND_MEMORY);
	expect_mapped();
}

/* Low power, which lasts until its exit whatever else is enabled */
TEST_F_TIMEOUT(suspend, low_power, TIMEOUT)
{
	int ret;

	ret = dev_feature_set(self->p.b, VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY);
	if (ret == -ENOTTY)
		SKIP(return, "no low power for this device");
	ASSERT_EQ(0, ret);
	EXPECT_TRUE(is_gone(&self->p, IOVA_BAR));
	EXPECT_EQ(-EINVAL, dev_feature_set(self->p.b, VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY));
	EXPECT_TRUE(is_gone(&self->p, IOVA_BAR));
	EXPECT_EQ(0, dev_feature_set(self->p.b, VFIO_DEVICE_FEATURE_LOW_POWER_EXIT));
	expect_mapped();
}

/*
 * B has memory and power states.  Its memory is mapped in the container that B is in
 * itself, in another, or in both; A does its DMA through that other one.
 */
FIXTURE(away) {
	struct p2p p;
	struct iommu *iommu;
	void *bar;
	int dmas;
};

FIXTURE_VARIANT(away) {
	bool own;		/* A's container is also B's */
	bool both;
	int dmas;
};

/* In D3hot QEMU's devices answer, so more is tried there; takes 100 ms each, twice */
static int many_dmas(void)
{
	const char *env = getenv("VFIO_SELFTESTS_DMAS");

	return env ? atoi(env) : 1000;
}

FIXTURE_VARIANT_ADD(away, own_container) { .own = true, .dmas = 20 };
FIXTURE_VARIANT_ADD(away, another_container) { .dmas = 20 };
FIXTURE_VARIANT_ADD(away, two_containers) { .both = true, .dmas = 20 };

FIXTURE_SETUP(away)
{
	int ret = p2p_open(&self->p, &want_nvme);

	ASSERT_TRUE(!ret || ret == -ENODEV);
	if (ret)
		SKIP(return, NO_NVME);

	if (!variant->own)
		self->iommu = iommu_init(MODE_VFIO_TYPE1V2_IOMMU);
	ASSERT_EQ(0, p2p_open_peer_in(&self->p, variant->own ? self->p.iommu : self->iommu));
	vfio_pci_cmd_set(self->p.b, PCI_COMMAND_MEMORY);
	self->bar = p2p_bar(&self->p, 0, MAP_SIZE);
	ASSERT_NE(NULL, self->bar);
	ASSERT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, self->bar, MAP_SIZE, DMA_RW));
	if (variant->both)
		ASSERT_EQ(0, dma_map(self->iommu, IOVA_BAR, self->bar, MAP_SIZE, DMA_RW));
	self->dmas = variant->dmas;
	fill(&self->p, 0x11111111, many_dmas() > variant->dmas ? many_dmas() : variant->dmas);
}

FIXTURE_TEARDOWN(away)
{
	p2p_close(&self->p);
	iommu_close(&self->iommu);
}

/* In how many of the IOMMU's page tables is it? */
static int seen_in(struct _test_data_away *self, const struct _fixture_variant_away *variant)
{
	int n = !is_gone(&self->p, IOVA_BAR);

	if (variant->both)
		n += iommu_lookup(self->p.bdf_b, IOVA_BAR, NULL) == 1;
	return n;
}

/* B's memory is not there */
static void expect_away(struct __test_metadata *_metadata, struct _test_data_away *self,
			const struct _fixture_variant_away *variant)
{
	EXPECT_EQ(0, seen_in(self, variant));
	EXPECT_EQ(0, store_each(&self->p, IOVA_BAR, 0x22222222, self->dmas));
	EXPECT_EQ(0, seen_in(self, variant));
}

/* It is back, and nobody has done anything about it */
static void expect_back(struct __test_metadata *_metadata, struct _test_data_away *self,
			const struct _fixture_variant_away *variant)
{
	EXPECT_EQ(self->dmas, count(&self->p, 0x11111111, self->dmas));
	EXPECT_EQ(1 + variant->both, seen_in(self, variant));
	EXPECT_TRUE(iommu_maps(self->p.bdf_a, IOVA_BAR, self->p.phys));
	EXPECT_EQ(0, store_each(&self->p, IOVA_BAR, 0x33333333, self->dmas));
	EXPECT_EQ(self->dmas, count(&self->p, 0x33333333, self->dmas));
}

/* No DMA lands while memory is disabled, and all of it does afterwards */
TEST_F_TIMEOUT(away, by_the_command_register, LONG_TIMEOUT)
{
	vfio_pci_cmd_clear(self->p.b, PCI_COMMAND_MEMORY);
	expect_away(_metadata, self, variant);
	vfio_pci_cmd_set(self->p.b, PCI_COMMAND_MEMORY);
	expect_back(_metadata, self, variant);
}

/* In D3hot, where QEMU's devices answer like in D0 */
TEST_F_TIMEOUT(away, by_the_power_state, LONG_TIMEOUT)
{
	ASSERT_NE(0, dev_find_cap(self->p.b, PCI_CAP_ID_PM));
	if (variant->own)
		self->dmas = many_dmas();

	dev_set_power(self->p.b, 3);
	expect_away(_metadata, self, variant);
	dev_set_power(self->p.b, 0);
	expect_back(_metadata, self, variant);
}

/* In low power */
TEST_F_TIMEOUT(away, by_low_power, LONG_TIMEOUT)
{
	ASSERT_EQ(0, dev_feature_set(self->p.b, VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY));
	expect_away(_metadata, self, variant);
	ASSERT_EQ(0, dev_feature_set(self->p.b, VFIO_DEVICE_FEATURE_LOW_POWER_EXIT));
	expect_back(_metadata, self, variant);
}

/* In low power that ends when the device is woken up, by an access to it */
TEST_F_TIMEOUT(away, by_low_power_until_it_is_woken_up, LONG_TIMEOUT)
{
	struct pollfd woken = { .events = POLLIN };

	woken.fd = eventfd(0, EFD_CLOEXEC);
	ASSERT_LE(0, woken.fd);
	ASSERT_EQ(0, dev_low_power_with_wakeup(self->p.b, woken.fd));
	ASSERT_TRUE(pci_is_suspended(self->p.bdf_b));
	expect_away(_metadata, self, variant);
	EXPECT_EQ(0, poll(&woken, 1, 0));

	vfio_pci_config_readw(self->p.b, PCI_VENDOR_ID);
	EXPECT_EQ(1, poll(&woken, 1, 0));
	expect_back(_metadata, self, variant);
	close(woken.fd);
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
	return dev_function_level_reset(p->b);
}

/* By the bus, whatever else the device offers */
static int by_bus(struct p2p *p)
{
	char path[128];
	int ret;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/reset_method", p->bdf_b);
	ret = write_text(path, "bus");
	if (ret)
		return ret;
	ret = by_sysfs(p);
	write_text(path, "default");

	return ret;
}

/* By the port that the device is behind, which resets all there is on its bus */
static int by_port(struct p2p *p)
{
	char path[128];

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/../reset_subordinate", p->bdf_b);
	return write_text(path, "1");
}

static bool writer_stops;

/* Writes of the user's to config space, among them ones that enable memory */
static void *config_writer(void *arg)
{
	struct p2p *p = arg;

	while (!__atomic_load_n(&writer_stops, __ATOMIC_RELAXED)) {
		vfio_pci_cmd_set(p->b, PCI_COMMAND_MEMORY);
		vfio_pci_config_writeb(p->b, PCI_CACHE_LINE_SIZE, 16);
	}

	return NULL;
}

static int by_sysfs_while_config_is_written(struct p2p *p)
{
	pthread_t thread;
	int ret;

	__atomic_store_n(&writer_stops, false, __ATOMIC_RELAXED);
	if (pthread_create(&thread, NULL, config_writer, p))
		return -ENOMEM;
	ret = by_sysfs(p);
	__atomic_store_n(&writer_stops, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);

	return ret;
}

/* As drivers/pci/pcie/aer_inject.c has it */
struct aer_error_inj {
	u8 bus;
	u8 dev;
	u8 fn;
	u32 uncor_status;
	u32 cor_status;
	u32 header_log[4];
	u32 domain;
};

/*
 * An error that is fatal to the link, which the kernel recovers from by a reset.  What
 * injects it is in the way of config space as long as it is loaded, and takes a spinlock
 * there that lockdep does not like to see inside of others.
 */
static int by_fatal_error(struct p2p *p)
{
	struct aer_error_inj error = { .uncor_status = PCI_ERR_UNC_DLP };
	u64 deadline = now_us() + 20 * 1000000;
	unsigned int domain, bus, dev, fn;
	int fd, log, ret = -ETIMEDOUT;
	char line[8192];

	if (sscanf(p->bdf_b, "%x:%x:%x.%x", &domain, &bus, &dev, &fn) != 4)
		return -EINVAL;
	module_load("/modules/aer_inject.ko");
	fd = open("/dev/aer_inject", O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	error.domain = domain;
	error.bus = bus;
	error.dev = dev;
	error.fn = fn;

	log = kmsg_open();
	if (write(fd, &error, sizeof(error)) != sizeof(error))
		ret = -errno;
	close(fd);
	while (ret == -ETIMEDOUT && now_us() < deadline) {
		usleep(10000);
		while (kmsg_read(log, line, sizeof(line))) {
			if (strstr(line, "device recovery successful"))
				ret = 0;
			else if (strstr(line, "device recovery failed"))
				ret = -EIO;
		}
	}
	fd_close(&log);
	syscall(SYS_delete_module, "aer_inject", O_NONBLOCK);

	return ret;
}

static void *reset_thread(void *arg)
{
	struct reset *r = arg;

	r->ret = r->how(r->p);
	__atomic_store_n(&r->done, true, __ATOMIC_RELEASE);
	return NULL;
}

/* What was seen of a reset while it lasted */
struct seen {
	int gone;		/* how often B's memory was not mapped */
	int other;		/* nor that of another device, at the same time */
	int dmas;		/* transfers that ended meanwhile */
	int slot[16];		/* the words that these were to */
};

#define STRAY		0xbadbad00

/*
 * Resets B and looks meanwhile.  If its memory keeps what is written to it, A writes to a
 * word of it, and to the next one.  A transfer counts if B's memory was not mapped before
 * its end, nor after it, and the reset was still going on.
 */
static int reset_and_look(struct p2p *p, int (*how)(struct p2p *p), u64 other, bool store,
			  struct seen *seen)
{
	struct reset r = { .how = how, .p = p };
	bool gone, busy, before = false;
	int slot = 1;

	memset(seen, 0, sizeof(*seen));
	if (store) {
		if (edu_load(p, STRAY))
			return -EIO;
		edu_start(p, IOVA_BAR + slot * 4);
		/* So that it ends when the reset has begun */
		usleep(50000);
	}
	if (pthread_create(&r.thread, NULL, reset_thread, &r))
		return -ENOMEM;
	do {
		busy = edu_is_busy(p);
		gone = iommu_lookup(p->bdf_a, IOVA_BAR, NULL) == 0;
		seen->gone += gone;
		seen->other += gone && other && iommu_lookup(p->bdf_a, other, NULL) == 0;
		if (__atomic_load_n(&r.done, __ATOMIC_ACQUIRE))
			break;
		if (store && !busy && slot < 16) {
			if (before && gone)
				seen->slot[seen->dmas++] = slot;
			edu_start(p, IOVA_BAR + ++slot * 4);
			before = gone;
		} else if (gone && edu_is_busy(p)) {
			before = true;
		}
		usleep(1000);
	} while (!__atomic_load_n(&r.done, __ATOMIC_ACQUIRE));
	pthread_join(r.thread, NULL);
	while (edu_is_busy(p))
		usleep(1000);

	return r.ret;
}

static bool cannot_reset(int ret)
{
	return ret == -ENOTTY || ret == -EINVAL || ret == -ENOENT;
}

/* A list of the pages of all devices can take longer than a reset does */
static bool looks_are_slow(struct p2p *p)
{
	u64 best = UINT64_MAX, start;
	int i;

	for (i = 0; i < 3; i++) {
		start = now_us();
		iommu_lookup(p->bdf_a, IOVA_BAR, NULL);
		start = now_us() - start;
		best = start < best ? start : best;
	}

	return best > 150000;
}

/* How many of the transfers during the reset have reached the memory? */
static int strays(struct p2p *p, const struct seen *seen)
{
	int i, n = 0;

	for (i = 0; i < seen->dmas; i++)
		n += mmio_read32(p->window + seen->slot[i] * 4) == STRAY;

	return n;
}

/*
 * B is in a container of its own, which tells when a reset begins.  A's has nothing of B.
 */
FIXTURE(first) {
	struct p2p p;
	struct iommu *iommu;
	void *bar;
};

FIXTURE_SETUP(first)
{
	int ret = p2p_open(&self->p, &want_nvme);

	ASSERT_TRUE(!ret || ret == -ENODEV);
	if (ret)
		SKIP(return, NO_NVME);

	self->iommu = iommu_init(MODE_VFIO_TYPE1V2_IOMMU);
	ASSERT_EQ(0, p2p_open_peer_in(&self->p, self->iommu));
	vfio_pci_cmd_set(self->p.b, PCI_COMMAND_MEMORY);
	self->bar = p2p_bar(&self->p, 0, MAP_SIZE);
	ASSERT_NE(NULL, self->bar);
	ASSERT_EQ(0, dma_map(self->iommu, IOVA_BAR, self->bar, MAP_SIZE, DMA_RW));
}

FIXTURE_TEARDOWN(first)
{
	p2p_close(&self->p);
	iommu_close(&self->iommu);
}

/* Who maps it for the first time while it is reset has it when that is over */
TEST_F_TIMEOUT(first, mapped_in_the_midst_of_a_reset, TIMEOUT)
{
	struct reset r = { .how = by_bus, .p = &self->p };
	u64 deadline;
	int looks = 0;
	bool gone;

	if (iommu_lookup(self->p.bdf_b, IOVA_BAR, NULL) != 1)
		SKIP(return, NO_LOOKUP);
	if (looks_are_slow(&self->p))
		SKIP(return, SLOW_LOOKUP);

	ASSERT_EQ(0, pthread_create(&r.thread, NULL, reset_thread, &r));
	deadline = now_us() + 20 * 1000000;
	while (iommu_lookup(self->p.bdf_b, IOVA_BAR, NULL) == 1 && now_us() < deadline)
		usleep(1000);
	EXPECT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, self->bar, MAP_SIZE, DMA_RW));
	do {
		gone = is_gone(&self->p, IOVA_BAR);
		if (iommu_lookup(self->p.bdf_b, IOVA_BAR, NULL) == 1)
			break;
		EXPECT_TRUE(gone);
		looks++;
	} while (!__atomic_load_n(&r.done, __ATOMIC_ACQUIRE));
	pthread_join(r.thread, NULL);
	if (cannot_reset(r.ret))
		SKIP(return, NO_RESET);
	EXPECT_EQ(0, r.ret);
	EXPECT_LT(0, looks);
	expect_mapped_at(0);
	EXPECT_EQ(1, iommu_lookup(self->p.bdf_b, IOVA_BAR, NULL));
}

FIXTURE(reset) {
	struct p2p p;
	void *bar;
	size_t offset;
};

FIXTURE_VARIANT(reset) {
	bool nic;
	const struct pci_want *want;
	int (*how)(struct p2p *p);
};

/* Where there is no quicker way the reset is one of the bus and takes a second or more */
FIXTURE_VARIANT_ADD(reset, ioctl) { .how = by_ioctl };
FIXTURE_VARIANT_ADD(reset, ioctl_flr) { .how = by_ioctl, .nic = true };
FIXTURE_VARIANT_ADD(reset, hot_reset) { .how = by_hot_reset };
FIXTURE_VARIANT_ADD(reset, sysfs) { .how = by_sysfs };
FIXTURE_VARIANT_ADD(reset, sysfs_flr) { .how = by_sysfs, .nic = true };
FIXTURE_VARIANT_ADD(reset, bus) { .how = by_bus };
FIXTURE_VARIANT_ADD(reset, port) { .how = by_port };
FIXTURE_VARIANT_ADD(reset, sysfs_and_config) { .how = by_sysfs_while_config_is_written };
FIXTURE_VARIANT_ADD(reset, nvme_ioctl) { .how = by_ioctl, .want = &want_nvme };
FIXTURE_VARIANT_ADD(reset, nvme_config_flr) { .how = by_config, .want = &want_nvme };
FIXTURE_VARIANT_ADD(reset, nvme_sysfs) { .how = by_sysfs, .want = &want_nvme };

FIXTURE_SETUP(reset)
{
	const struct pci_want *want = variant->nic ? &want_e1000e : &want_mem_slot;
	int ret = p2p_open(&self->p, variant->want ? variant->want : want);

	ASSERT_TRUE(!ret || ret == -ENODEV);
	if (ret)
		SKIP(return, NO_DEVICES);

	self->offset = variant->nic ? NIC_REG : 0;
	self->bar = map_b(_metadata, &self->p);
}

FIXTURE_TEARDOWN(reset)
{
	close_both(&self->p);
}

/* Not mapped in the reset, mapped after it */
TEST_F_TIMEOUT(reset, suspended_meanwhile, TIMEOUT)
{
	bool want = variant->want && !variant->nic;
	int ret, looks = 0, dmas = 0, i;
	struct seen seen;

	if (iommu_lookup(self->p.bdf_a, IOVA_BAR, NULL) < 0)
		SKIP(return, NO_LOOKUP);
	if (looks_are_slow(&self->p))
		SKIP(return, SLOW_LOOKUP);

	expect_mapped();
	/* A reset may be over before anybody has looked */
	for (i = 0; i < 2 || (i < 20 && (!looks || (want && !dmas))); i++) {
		if (!variant->nic)
			fill(&self->p, 0, 32);
		ret = reset_and_look(&self->p, variant->how, 0, !variant->nic, &seen);
		if (cannot_reset(ret))
			SKIP(return, NO_RESET);
		EXPECT_EQ(0, ret);
		EXPECT_EQ(0, strays(&self->p, &seen));
		looks += seen.gone;
		dmas += seen.dmas;
		expect_mapped();
	}
	printf("# %d resets, not mapped %d times, %d transfers meanwhile\n", i, looks, dmas);
	EXPECT_LT(0, looks);
	if (variant->nic)
		return;
	/* A transfer fits into a function level reset, but not into one of QEMU's buses */
	if (want)
		EXPECT_LT(0, dmas);
	EXPECT_EQ(0, store_each(&self->p, IOVA_BAR, 0x33333333, 20));
	EXPECT_EQ(20, count(&self->p, 0x33333333, 20));
}

/* A reset does not enable what is disabled */
TEST_F_TIMEOUT(reset, stays_suspended_if_disabled, TIMEOUT)
{
	struct seen seen;
	int ret;

	if (variant->how == by_sysfs_while_config_is_written)
		SKIP(return, "what is written enables it");

	vfio_pci_cmd_clear(self->p.b, PCI_COMMAND_MEMORY);
	ret = reset_and_look(&self->p, variant->how, 0, false, &seen);
	if (cannot_reset(ret))
		SKIP(return, NO_RESET);
	EXPECT_EQ(0, ret);
	EXPECT_TRUE(is_gone(&self->p, IOVA_BAR));
	vfio_pci_cmd_set(self->p.b, PCI_COMMAND_MEMORY);
	expect_mapped();

	/* It wakes up a device in low power, whose command register enables the memory */
	if (variant->how != by_sysfs ||
	    dev_feature_set(self->p.b, VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY))
		return;
	EXPECT_EQ(0, by_sysfs(&self->p));
	EXPECT_TRUE(is_gone(&self->p, IOVA_BAR));
	EXPECT_EQ(0, dev_feature_set(self->p.b, VFIO_DEVICE_FEATURE_LOW_POWER_EXIT));
	expect_mapped();
}

/*
 * B is an e1000e, which can be given an error
 */
FIXTURE(error) {
	struct p2p p;
	void *bar;
	size_t offset;
};

FIXTURE_SETUP(error)
{
	int ret = p2p_open(&self->p, &want_e1000e);

	ASSERT_TRUE(!ret || ret == -ENODEV);
	if (ret)
		SKIP(return, NO_NIC);

	self->offset = NIC_REG;
	self->bar = map_b(_metadata, &self->p);
}

FIXTURE_TEARDOWN(error)
{
	close_both(&self->p);
}

/* An eventfd that tells of errors of B */
static int error_eventfd(struct p2p *p)
{
	s32 fd = eventfd(0, EFD_CLOEXEC);
	struct vfio_irq_set *set;
	size_t size = sizeof(*set) + sizeof(fd);

	set = calloc(1, size);
	if (!set)
		return -ENOMEM;

	set->argsz = size;
	set->flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
	set->index = VFIO_PCI_ERR_IRQ_INDEX;
	set->count = 1;
	memcpy(set->data, &fd, sizeof(fd));
	if (fd >= 0 && ioctl(p->b->fd, VFIO_DEVICE_SET_IRQS, set))
		fd_close(&fd);
	free(set);

	return fd;
}

/*
 * A fatal error takes the memory away, before the user is told of it.  The reset of the link
 * that follows takes a tenth of a second and more.  It leaves the BARs empty, and vfio-pci
 * does not restore them by itself.  So the memory is back when the user enables it.
 */
TEST_F_TIMEOUT(error, suspended_until_the_bars_are_back, TIMEOUT)
{
	struct reset r = { .how = by_fatal_error, .p = &self->p };
	struct pollfd told = { .events = POLLIN };
	u64 n;
	int i;

	told.fd = error_eventfd(&self->p);
	ASSERT_LE(0, told.fd);
	for (i = 0; i < 2; i++) {
		expect_mapped();
		r.done = false;
		ASSERT_EQ(0, pthread_create(&r.thread, NULL, reset_thread, &r));
		while (!poll(&told, 1, 10) && !__atomic_load_n(&r.done, __ATOMIC_ACQUIRE))
			;
		if (told.revents) {
			expect_gone();
			EXPECT_EQ(sizeof(n), read(told.fd, &n, sizeof(n)));
		}
		pthread_join(r.thread, NULL);
		if (r.ret == -ENOENT)
			SKIP(return, "this kernel cannot inject errors");
		EXPECT_EQ(0, r.ret);
		EXPECT_NE(0, told.revents);
		expect_gone();
		vfio_pci_cmd_set(self->p.b, PCI_COMMAND_MEMORY);
	}
	expect_mapped();
	EXPECT_EQ(MAP_SIZE, dma_unmap(self->p.iommu, IOVA_BAR, MAP_SIZE));
	close(told.fd);
}

/*
 * B and C are functions of one slot and of one group, which are reset together
 */
FIXTURE(slot) {
	struct p2p p;
	struct vfio_pci_device *c;
	char bdf_c[BDF_LEN];
	void *bar, *bar_c;
};

#define IOVA_C	(IOVA_BAR + SZ_1M)

static int find_slot(char *b, char *c)
{
	int i;

	/* In the order of addresses */
	if (pci_find(&want_mem_slot, 0, c) < 0)
		return -ENODEV;
	for (i = 1; snprintf(b, BDF_LEN, "%s", c), pci_find(&want_mem_slot, i, c) >= 0; i++)
		if (!strncmp(b, c, strlen(b) - 1))
			return 0;

	return -ENODEV;
}

FIXTURE_SETUP(slot)
{
	char bdf_b[BDF_LEN];
	int ret = find_slot(bdf_b, self->bdf_c);

	if (!ret)
		ret = p2p_open(&self->p, &want_mem_slot);
	ASSERT_TRUE(!ret || ret == -ENODEV);
	if (ret)
		SKIP(return, NO_SLOT);

	snprintf(self->p.bdf_b, sizeof(self->p.bdf_b), "%s", bdf_b);
	ASSERT_EQ(0, pci_bar(bdf_b, self->p.bar, &self->p.phys, &self->p.size));
	ASSERT_EQ(0, pci_bind_vfio(bdf_b));
	ASSERT_EQ(0, pci_bind_vfio(self->bdf_c));
	ASSERT_EQ(0, p2p_open_peer(&self->p));

	self->c = dev_alloc(self->bdf_c, self->p.iommu);
	self->c->group_fd = dup(self->p.b->group_fd);
	ASSERT_LE(0, self->c->group_fd);
	__vfio_pci_group_get_device_fd(self->c, self->bdf_c, NULL);
	ASSERT_LE(0, self->c->fd);
	ASSERT_EQ(0, region_info(self->c->fd, VFIO_PCI_CONFIG_REGION_INDEX,
				 &self->c->config_space));

	vfio_pci_cmd_set(self->p.b, PCI_COMMAND_MEMORY);
	vfio_pci_cmd_set(self->c, PCI_COMMAND_MEMORY);
	self->bar = p2p_bar(&self->p, 0, MAP_SIZE);
	self->bar_c = bar_mmap(self->c->fd, self->p.bar, PROT_READ | PROT_WRITE, 0, MAP_SIZE);
	ASSERT_NE(NULL, self->bar);
	ASSERT_NE(NULL, self->bar_c);
	ASSERT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, self->bar, MAP_SIZE, DMA_RW));
	ASSERT_EQ(0, dma_map(self->p.iommu, IOVA_C, self->bar_c, MAP_SIZE, DMA_RW));
}

FIXTURE_TEARDOWN(slot)
{
	dev_close(&self->c);
	p2p_close(&self->p);
}

/* A hot reset takes the memory of all devices that it resets */
TEST_F_TIMEOUT(slot, hot_reset_suspends_both, TIMEOUT)
{
	struct seen seen;
	bool slow;

	if (iommu_lookup(self->p.bdf_a, IOVA_BAR, NULL) < 0)
		SKIP(return, NO_LOOKUP);
	slow = looks_are_slow(&self->p);

	expect_mapped_at(0);
	EXPECT_TRUE(is_mapped(&self->p, IOVA_C));
	fill(&self->p, 0, 32);
	EXPECT_EQ(0, reset_and_look(&self->p, by_hot_reset, IOVA_C, true, &seen));
	printf("# not mapped %d times, both %d times, %d transfers meanwhile\n", seen.gone,
	       seen.other, seen.dmas);
	EXPECT_TRUE(seen.other || slow);
	EXPECT_EQ(0, strays(&self->p, &seen));
	expect_mapped_at(0);
	EXPECT_TRUE(is_mapped(&self->p, IOVA_C));

	/* One of them is disabled, and stays so */
	vfio_pci_cmd_clear(self->c, PCI_COMMAND_MEMORY);
	EXPECT_EQ(0, reset_and_look(&self->p, by_hot_reset, IOVA_C, false, &seen));
	EXPECT_TRUE(seen.other || slow);
	expect_mapped_at(0);
	EXPECT_TRUE(is_gone(&self->p, IOVA_C));
	vfio_pci_cmd_set(self->c, PCI_COMMAND_MEMORY);
	EXPECT_TRUE(is_mapped(&self->p, IOVA_C));
}

/*
 * B is a virtual function, in whose command register there is no bit for memory
 */
#define ENABLE_SRIOV	"/sys/module/vfio_pci/parameters/enable_sriov"
#define VF_TOKEN	"52ac9bff-3a88-4fbd-901a-0d767c3b6c97"

FIXTURE(vf) {
	struct p2p p;
	struct iommu *iommu;
	struct vfio_pci_device *pf;
	char bdf_pf[BDF_LEN];
	char numvfs[PATH_MAX];
	char param[8];
	void *bar;
};

static int set_vf_token(struct vfio_pci_device *dev)
{
	struct {
		struct vfio_device_feature feature;
		u8 uuid[16];
	} arg = {
		.feature.argsz = sizeof(arg),
		.feature.flags = VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_PCI_VF_TOKEN,
		.uuid = { 0x52, 0xac, 0x9b, 0xff, 0x3a, 0x88, 0x4f, 0xbd,
			  0x90, 0x1a, 0x0d, 0x76, 0x7c, 0x3b, 0x6c, 0x97 },
	};

	return ioctl(dev->fd, VFIO_DEVICE_FEATURE, &arg) ? -errno : 0;
}

static int vf_open(struct p2p *p, const char *bdf_pf)
{
	char path[PATH_MAX], link[PATH_MAX], name[128];
	ssize_t n;
	int ret;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/virtfn0", bdf_pf);
	n = readlink(path, link, sizeof(link) - 1);
	if (n < 0)
		return -errno;
	link[n] = '\0';
	snprintf(p->bdf_b, sizeof(p->bdf_b), "%s", basename(link));
	p->bar = 0;
	ret = pci_bar(p->bdf_b, p->bar, &p->phys, &p->size);
	if (!ret)
		ret = dev_prepare(p->bdf_b);
	if (ret)
		return ret;

	p->b = dev_alloc(p->bdf_b, p->iommu);
	vfio_pci_group_setup(p->b, p->bdf_b);
	snprintf(name, sizeof(name), "%s vf_token=" VF_TOKEN, p->bdf_b);
	p->b->fd = ioctl(p->b->group_fd, VFIO_GROUP_GET_DEVICE_FD, name);
	if (p->b->fd < 0)
		return -errno;
	return region_info(p->b->fd, VFIO_PCI_CONFIG_REGION_INDEX, &p->b->config_space);
}

static int pf_find(char *bdf, char *numvfs, size_t len)
{
	unsigned int i;

	for (i = 0; pci_find(&want_nvme_pf, i, bdf) >= 0; i++) {
		snprintf(numvfs, len, "/sys/bus/pci/devices/%s/sriov_numvfs", bdf);
		if (!access(numvfs, W_OK))
			return 0;
	}

	return -ENODEV;
}

FIXTURE_SETUP(vf)
{
	int ret = pf_find(self->bdf_pf, self->numvfs, sizeof(self->numvfs));

	if (!ret)
		ret = p2p_open(&self->p, &want_nvme_pf);
	ASSERT_TRUE(!ret || ret == -ENODEV);
	if (ret)
		SKIP(return, NO_VF);

	self->iommu = iommu_init(MODE_VFIO_TYPE1V2_IOMMU);
	ASSERT_EQ(0, dev_open(&self->pf, self->bdf_pf, self->iommu));
	ASSERT_EQ(0, set_vf_token(self->pf));
	ASSERT_LT(0, read_text(ENABLE_SRIOV, self->param, sizeof(self->param)));
	ASSERT_EQ(0, write_text(ENABLE_SRIOV, "1"));
	ASSERT_EQ(0, write_text(self->numvfs, "1"));
	ASSERT_EQ(0, vf_open(&self->p, self->bdf_pf));
	self->bar = p2p_bar(&self->p, 0, SZ_16K);
	ASSERT_NE(NULL, self->bar);
	ASSERT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, self->bar, SZ_16K, DMA_RW));
}

FIXTURE_TEARDOWN(vf)
{
	/* It cannot be removed as long as it is open */
	munmap(self->bar, SZ_16K);
	dev_close(&self->p.b);
	write_text(self->numvfs, "0");
	write_text(ENABLE_SRIOV, self->param);
	dev_close(&self->pf);
	iommu_close(&self->iommu);
	p2p_close(&self->p);
}

/*
 * What is written there disables nothing, so the mapping goes on.  A reset takes it away as
 * it does any device's.  QEMU's VF has registers only, which answer nothing before its
 * driver is set up: the IOMMU's page tables have to do.
 */
TEST_F_TIMEOUT(vf, memory_bit_disables_nothing, TIMEOUT)
{
	u32 seen;

	EXPECT_TRUE(iommu_maps(self->p.bdf_a, IOVA_BAR, self->p.phys));
	vfio_pci_cmd_set(self->p.b, PCI_COMMAND_MEMORY);
	vfio_pci_cmd_clear(self->p.b, PCI_COMMAND_MEMORY);
	EXPECT_TRUE(iommu_maps(self->p.bdf_a, IOVA_BAR, self->p.phys));
	EXPECT_TRUE(iommu_maps(self->p.bdf_a, IOVA_BAR + SZ_16K - SZ_4K,
			       self->p.phys + SZ_16K - SZ_4K));
	EXPECT_EQ(0, bus_read32(self->bar, &seen));
	EXPECT_EQ(0, dma_map(self->p.iommu, IOVA_BAR + SZ_1M, self->bar, SZ_16K, DMA_RW));

	EXPECT_EQ(0, __vfio_pci_device_reset(self->p.b));
	EXPECT_TRUE(iommu_maps(self->p.bdf_a, IOVA_BAR, self->p.phys));
	EXPECT_EQ(SZ_16K, dma_unmap(self->p.iommu, IOVA_BAR + SZ_1M, SZ_16K));
	EXPECT_EQ(SZ_16K, dma_unmap(self->p.iommu, IOVA_BAR, SZ_16K));
	EXPECT_NE(1, iommu_lookup(self->p.bdf_a, IOVA_BAR, NULL));
}

/* The mapping is the user's, whatever there is behind it */
TEST_F_TIMEOUT(suspend, unmap_while_suspended, TIMEOUT)
{
	s64 avail = self->avail;

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

/* And after the release */
TEST_F_TIMEOUT(suspend, unmap_after_the_release, TIMEOUT)
{
	s64 avail = self->avail;

	p2p_release(&self->p, self->bar, MAP_SIZE);
	expect_gone();
	EXPECT_EQ(avail - 1, dma_avail(self->p.iommu));
	EXPECT_EQ(-EEXIST, dma_map(self->p.iommu, IOVA_BAR, self->p.scratch, SZ_4K, DMA_RW));
	EXPECT_EQ(MAP_SIZE, dma_unmap(self->p.iommu, IOVA_BAR, MAP_SIZE));
	EXPECT_EQ(0, dma_unmap(self->p.iommu, IOVA_BAR, MAP_SIZE));
	EXPECT_EQ(avail, dma_avail(self->p.iommu));
	EXPECT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, self->p.scratch, SZ_4K, DMA_RW));
}

/* Released while it is suspended, it does not come back when it is enabled */
TEST_F_TIMEOUT(suspend, reopening_brings_nothing_back, TIMEOUT)
{
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

/* As on any kernel */
TEST_F_TIMEOUT(suspend, disabled_memory_cannot_be_mapped, TIMEOUT)
{
	vfio_pci_cmd_clear(self->p.b, PCI_COMMAND_MEMORY);
	EXPECT_EQ(-EFAULT, dma_map(self->p.iommu, IOVA_BAR + SZ_1M, self->bar, MAP_SIZE,
				   DMA_RW));
	EXPECT_EQ(self->avail - 1, dma_avail(self->p.iommu));
	vfio_pci_cmd_set(self->p.b, PCI_COMMAND_MEMORY);
	EXPECT_TRUE(is_gone(&self->p, IOVA_BAR + SZ_1M));
	expect_mapped();
}

/* RAM on both sides of device memory in one mapping */
TEST_F_TIMEOUT(suspend, ram_beside_it_goes_on_working, TIMEOUT)
{
	const u64 iova = IOVA_BAR + SZ_1M;
	long before = proc_locked_kb();
	u32 *low, *high;
	void *area, *bar;

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

/* Several vmas in one mapping take an entry each, but not if they adjoin */
TEST_F_TIMEOUT(suspend, ranges_are_counted, TIMEOUT)
{
	const u64 iova = IOVA_BAR + SZ_1M;
	void *area;
	int i;

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

/*
 * B, RAM and C beside each other in one mapping
 */
FIXTURE(neighbours) {
	struct p2p p;
	struct vfio_pci_device *c;
	char bdf_c[BDF_LEN];
	s64 avail;
	void *area;
	int bar_c;
};

#define AREA_RAM	(IOVA_BAR + MAP_SIZE)
#define AREA_C		(IOVA_BAR + 2 * MAP_SIZE)

FIXTURE_SETUP(neighbours)
{
	int ret;

	self->bar_c = pci_find(&want_mem_slot, 1, self->bdf_c);
	ret = self->bar_c < 0 ? self->bar_c : p2p_open(&self->p, &want_mem_slot);
	ASSERT_TRUE(!ret || ret == -ENODEV);
	if (ret)
		SKIP(return, NO_NEIGHBOUR);

	self->avail = dma_avail(self->p.iommu);
	ASSERT_EQ(0, p2p_open_peer(&self->p));
	ASSERT_EQ(0, dev_open(&self->c, self->bdf_c, self->p.iommu));
	vfio_pci_cmd_set(self->p.b, PCI_COMMAND_MEMORY);
	vfio_pci_cmd_set(self->c, PCI_COMMAND_MEMORY);
	self->area = mmap(NULL, 3 * MAP_SIZE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->area);
	ASSERT_NE(NULL, bar_mmap_at(self->area, self->p.b->fd, self->p.bar,
				    PROT_READ | PROT_WRITE, 0, MAP_SIZE));
	ASSERT_NE(NULL, bar_mmap_at(self->area + 2 * MAP_SIZE, self->c->fd, self->bar_c,
				    PROT_READ | PROT_WRITE, 0, MAP_SIZE));
	ASSERT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, self->area, 3 * MAP_SIZE, DMA_RW));
}

FIXTURE_TEARDOWN(neighbours)
{
	dev_close(&self->c);
	p2p_close(&self->p);
}

static bool ram_works(struct _test_data_neighbours *self)
{
	static u32 stamp = 0x1000;
	u32 *ram = self->area + MAP_SIZE;

	return is_mapped(&self->p, AREA_RAM) && !p2p_store(&self->p, AREA_RAM, ++stamp) &&
	       *ram == stamp;
}

static bool b_works(struct _test_data_neighbours *self)
{
	return is_mapped(&self->p, IOVA_BAR) && p2p_lands(&self->p, IOVA_BAR, 0) == 1;
}

/* Each goes and comes by itself, also when another is released meanwhile */
TEST_F_TIMEOUT(neighbours, each_goes_by_itself, TIMEOUT)
{
	EXPECT_TRUE(b_works(self));
	EXPECT_TRUE(is_mapped(&self->p, AREA_C));
	EXPECT_TRUE(ram_works(self));

	vfio_pci_cmd_clear(self->p.b, PCI_COMMAND_MEMORY);
	EXPECT_TRUE(is_gone(&self->p, IOVA_BAR));
	EXPECT_TRUE(is_mapped(&self->p, AREA_C));
	EXPECT_TRUE(ram_works(self));

	vfio_pci_cmd_clear(self->c, PCI_COMMAND_MEMORY);
	EXPECT_TRUE(is_gone(&self->p, AREA_C));
	vfio_pci_cmd_set(self->p.b, PCI_COMMAND_MEMORY);
	EXPECT_TRUE(b_works(self));
	EXPECT_TRUE(is_gone(&self->p, AREA_C));
	EXPECT_TRUE(ram_works(self));

	/* C is released while it is suspended, and B is suspended after that */
	munmap(self->area + 2 * MAP_SIZE, MAP_SIZE);
	dev_close(&self->c);
	EXPECT_TRUE(is_gone(&self->p, AREA_C));
	EXPECT_TRUE(b_works(self));
	EXPECT_TRUE(ram_works(self));
	vfio_pci_cmd_clear(self->p.b, PCI_COMMAND_MEMORY);
	EXPECT_TRUE(is_gone(&self->p, IOVA_BAR));
	vfio_pci_cmd_set(self->p.b, PCI_COMMAND_MEMORY);
	EXPECT_TRUE(b_works(self));
	EXPECT_TRUE(is_gone(&self->p, AREA_C));
	EXPECT_TRUE(ram_works(self));
	EXPECT_EQ(3 * MAP_SIZE, dma_unmap(self->p.iommu, IOVA_BAR, 3 * MAP_SIZE));
	EXPECT_EQ(self->avail, dma_avail(self->p.iommu));
}

/*
 * A group joins A's container.  VT-d has one domain for both, unless it cannot.
 */
FIXTURE(joins) {
	struct p2p p;
	struct vfio_pci_device *d;
	char bdf_d[BDF_LEN];
	void *bar;
};

FIXTURE_VARIANT(joins) {
	bool apart;
};

FIXTURE_VARIANT_ADD(joins, the_domain) { .apart = false };
FIXTURE_VARIANT_ADD(joins, with_its_own) { .apart = true };

FIXTURE_SETUP(joins)
{
	int ret = pci_find(&want_edu, 1, self->bdf_d);

	if (ret >= 0)
		ret = p2p_open(&self->p, &want_mem_slot);
	ASSERT_TRUE(!ret || ret == -ENODEV);
	if (ret)
		SKIP(return, NO_EDUS);

	ASSERT_EQ(0, p2p_open_peer(&self->p));
	vfio_pci_cmd_set(self->p.b, PCI_COMMAND_MEMORY);
	self->bar = p2p_bar(&self->p, 0, MAP_SIZE);
	ASSERT_NE(NULL, self->bar);
	ASSERT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, self->bar, MAP_SIZE, DMA_RW));
	if (variant->apart && !iommu_table(self->p.bdf_a))
		SKIP(return, NO_LOOKUP);
}

FIXTURE_TEARDOWN(joins)
{
	dev_close(&self->d);
	p2p_close(&self->p);
}

static int join(struct __test_metadata *_metadata, struct _test_data_joins *self,
		const struct _fixture_variant_joins *variant)
{
	struct p2p *p = &self->p;
	int ret;

	if (!variant->apart)
		return dev_open(&self->d, self->bdf_d, p->iommu);

	ret = dev_open_apart(&self->d, self->bdf_d, p->iommu, p->bdf_a);
	if (!ret)
		EXPECT_NE(iommu_table(p->bdf_a), iommu_table(self->bdf_d));

	return ret;
}

#define NO_DOMAIN	"the kernel cannot be made to use two domains"

static bool d_maps(struct _test_data_joins *self)
{
	return iommu_maps(self->bdf_d, IOVA_BAR, self->p.phys) &&
	       iommu_maps(self->bdf_d, IOVA_BAR + MAP_SIZE - SZ_4K,
			  self->p.phys + MAP_SIZE - SZ_4K);
}

/* It has what is mapped, until that is suspended or released */
TEST_F_TIMEOUT(joins, while_mapped, TIMEOUT)
{
	int ret;

	ret = join(_metadata, self, variant);
	if (ret == -ENODATA)
		SKIP(return, NO_DOMAIN);
	ASSERT_EQ(0, ret);
	EXPECT_TRUE(d_maps(self));
	expect_mapped_at(0);
	vfio_pci_cmd_clear(self->p.b, PCI_COMMAND_MEMORY);
	EXPECT_NE(1, iommu_lookup(self->bdf_d, IOVA_BAR, NULL));
	EXPECT_TRUE(is_gone(&self->p, IOVA_BAR));
	vfio_pci_cmd_set(self->p.b, PCI_COMMAND_MEMORY);
	EXPECT_TRUE(d_maps(self));
	expect_mapped_at(0);

	/* And what is mapped from now on */
	EXPECT_EQ(MAP_SIZE, dma_unmap(self->p.iommu, IOVA_BAR, MAP_SIZE));
	EXPECT_NE(1, iommu_lookup(self->bdf_d, IOVA_BAR, NULL));
	ASSERT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, self->bar, MAP_SIZE, DMA_RW));
	EXPECT_TRUE(d_maps(self));
	expect_mapped_at(0);
	p2p_release(&self->p, self->bar, MAP_SIZE);
	EXPECT_NE(1, iommu_lookup(self->bdf_d, IOVA_BAR, NULL));
	EXPECT_NE(1, iommu_lookup(self->p.bdf_a, IOVA_BAR, NULL));
	EXPECT_EQ(MAP_SIZE, dma_unmap(self->p.iommu, IOVA_BAR, MAP_SIZE));
}

/* It has the memory when that is back, and goes on when the first group has left */
TEST_F_TIMEOUT(joins, while_suspended, TIMEOUT)
{
	int ret;

	vfio_pci_cmd_clear(self->p.b, PCI_COMMAND_MEMORY);
	ret = join(_metadata, self, variant);
	if (ret == -ENODATA)
		SKIP(return, NO_DOMAIN);
	ASSERT_EQ(0, ret);
	EXPECT_NE(1, iommu_lookup(self->bdf_d, IOVA_BAR, NULL));
	EXPECT_TRUE(is_gone(&self->p, IOVA_BAR));
	vfio_pci_cmd_set(self->p.b, PCI_COMMAND_MEMORY);
	EXPECT_TRUE(d_maps(self));
	expect_mapped_at(0);

	vfio_pci_cmd_clear(self->p.b, PCI_COMMAND_MEMORY);
	dev_close(&self->p.a);
	EXPECT_NE(1, iommu_lookup(self->bdf_d, IOVA_BAR, NULL));
	vfio_pci_cmd_set(self->p.b, PCI_COMMAND_MEMORY);
	EXPECT_TRUE(d_maps(self));
	p2p_release(&self->p, self->bar, MAP_SIZE);
	EXPECT_NE(1, iommu_lookup(self->bdf_d, IOVA_BAR, NULL));
	EXPECT_EQ(MAP_SIZE, dma_unmap(self->p.iommu, IOVA_BAR, MAP_SIZE));
}

/* Released while suspended, it is nothing that a group which joins then would get */
TEST_F_TIMEOUT(joins, after_a_release_while_suspended, TIMEOUT)
{
	int ret;

	vfio_pci_cmd_clear(self->p.b, PCI_COMMAND_MEMORY);
	p2p_release(&self->p, self->bar, MAP_SIZE);
	ret = join(_metadata, self, variant);
	if (ret == -ENODATA)
		SKIP(return, NO_DOMAIN);
	ASSERT_EQ(0, ret);
	EXPECT_NE(1, iommu_lookup(self->bdf_d, IOVA_BAR, NULL));
	EXPECT_EQ(-EEXIST, dma_map(self->p.iommu, IOVA_BAR, self->p.scratch, SZ_4K, DMA_RW));
	EXPECT_EQ(MAP_SIZE, dma_unmap(self->p.iommu, IOVA_BAR, MAP_SIZE));
	EXPECT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, self->p.scratch, SZ_4K, DMA_RW));
	EXPECT_NE(0, iommu_lookup(self->bdf_d, IOVA_BAR, NULL));
}

/*
 * What programs call around the release of a device.  All of this answers as it always has:
 * these tests pass on any kernel.
 */

/* DPDK unmaps what it mapped after it has closed the device, and maps it again */
TEST_F_TIMEOUT(suspend, calls_of_dpdk, TIMEOUT)
{
	int i;

	for (i = 0; i < 3; i++) {
		EXPECT_EQ(self->avail - 1, dma_avail(self->p.iommu));
		p2p_release(&self->p, self->bar, MAP_SIZE);
		/* Part of a mapping cannot be unmapped */
		EXPECT_EQ(-EINVAL, dma_unmap(self->p.iommu, IOVA_BAR, SZ_4K));
		EXPECT_EQ(-EINVAL, dma_unmap(self->p.iommu, IOVA_BAR + SZ_4K,
					     MAP_SIZE - SZ_4K));
		EXPECT_EQ(MAP_SIZE, dma_unmap(self->p.iommu, IOVA_BAR, MAP_SIZE));
		EXPECT_EQ(self->avail, dma_avail(self->p.iommu));
		EXPECT_EQ(0, dma_unmap(self->p.iommu, IOVA_BAR, MAP_SIZE));

		ASSERT_EQ(0, dev_open(&self->p.b, self->p.bdf_b, self->p.iommu));
		vfio_pci_cmd_set(self->p.b, PCI_COMMAND_MEMORY);
		self->bar = p2p_bar(&self->p, 0, MAP_SIZE);
		ASSERT_NE(NULL, self->bar);
		ASSERT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, self->bar, MAP_SIZE, DMA_RW));
	}
	expect_mapped();
}

static s64 unmap_all(struct iommu *iommu)
{
	return dma_unmap_flags(iommu, 0, 0, VFIO_DMA_UNMAP_FLAG_ALL);
}

/* QEMU unmaps by sections of memory, maps over nothing, and unmaps all in the end */
TEST_F_TIMEOUT(suspend, calls_of_qemu, TIMEOUT)
{
	void *ram = ram_alloc(MAP_SIZE);

	ASSERT_NE(NULL, ram);
	ASSERT_EQ(0, dma_map(self->p.iommu, IOVA_BAR + MAP_SIZE, ram, MAP_SIZE, DMA_RW));
	p2p_release(&self->p, self->bar, MAP_SIZE);
	EXPECT_EQ(-EEXIST, dma_map(self->p.iommu, IOVA_BAR, ram, MAP_SIZE, DMA_RW));
	EXPECT_EQ(-EEXIST, dma_map(self->p.iommu, IOVA_BAR + MAP_SIZE - SZ_4K, ram, SZ_4K,
				   DMA_RW));
	/* What it does when a mapping is refused: unmap, and try again */
	EXPECT_EQ(MAP_SIZE, dma_unmap(self->p.iommu, IOVA_BAR, MAP_SIZE));
	EXPECT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, ram, MAP_SIZE, DMA_RW));
	EXPECT_EQ(2 * MAP_SIZE, dma_unmap(self->p.iommu, IOVA_BAR, 2 * MAP_SIZE));

	ASSERT_EQ(0, dev_open(&self->p.b, self->p.bdf_b, self->p.iommu));
	vfio_pci_cmd_set(self->p.b, PCI_COMMAND_MEMORY);
	self->bar = p2p_bar(&self->p, 0, MAP_SIZE);
	ASSERT_NE(NULL, self->bar);
	ASSERT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, self->bar, MAP_SIZE, DMA_RW));
	p2p_release(&self->p, self->bar, MAP_SIZE);
	/* The page and the one of A's driver are unmapped with it */
	EXPECT_EQ(MAP_SIZE + 2 * SZ_4K, unmap_all(self->p.iommu));
	EXPECT_EQ(0, unmap_all(self->p.iommu));
	EXPECT_EQ(self->avail + 1, dma_avail(self->p.iommu));
	EXPECT_TRUE(is_gone(&self->p, IOVA_BAR));
}

/* rust-vmm takes an unmap of less than it has mapped for an error, and a group along */
TEST_F_TIMEOUT(suspend, calls_of_rust_vmm, TIMEOUT)
{
	/* The guest has disabled the device, and it is unplugged */
	vfio_pci_cmd_clear(self->p.b, PCI_COMMAND_MEMORY);
	munmap(self->bar, MAP_SIZE);
	EXPECT_EQ(MAP_SIZE, dma_unmap(self->p.iommu, IOVA_BAR, MAP_SIZE));

	/* Or the device goes first */
	vfio_pci_cmd_set(self->p.b, PCI_COMMAND_MEMORY);
	self->bar = p2p_bar(&self->p, 0, MAP_SIZE);
	ASSERT_NE(NULL, self->bar);
	ASSERT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, self->bar, MAP_SIZE, DMA_RW));
	munmap(self->bar, MAP_SIZE);
	dev_close_fd(self->p.b);
	EXPECT_EQ(0, group_detach(self->p.b));
	EXPECT_EQ(MAP_SIZE, dma_unmap(self->p.iommu, IOVA_BAR, MAP_SIZE));
	EXPECT_EQ(self->avail, dma_avail(self->p.iommu));
}

/*
 * Parameters of the module
 */
#define PARAMETERS	"/sys/module/vfio_iommu_type1/parameters/"

FIXTURE(parameter) {
	struct p2p p;
	const char *path;
	char old[16];
	void *bar;
};

FIXTURE_VARIANT(parameter) {
	const char *path;
	const char *val;
};

FIXTURE_VARIANT_ADD(parameter, dma_entry_limit) {
	.path = PARAMETERS "dma_entry_limit", .val = "64000",
};

FIXTURE_VARIANT_ADD(parameter, disable_hugepages) {
	.path = PARAMETERS "disable_hugepages", .val = "1",
};

FIXTURE_VARIANT_ADD(parameter, defaults) {
	.path = PARAMETERS "disable_hugepages", .val = "0",
};

FIXTURE_SETUP(parameter)
{
	int ret;

	self->path = variant->path;
	ASSERT_LT(0, read_text(self->path, self->old, sizeof(self->old)));
	/* The limit is that of the containers which are opened from now on */
	ASSERT_EQ(0, write_text(self->path, variant->val));
	ret = p2p_open(&self->p, &want_mem_slot);
	ASSERT_TRUE(!ret || ret == -ENODEV);
	if (ret) {
		write_text(self->path, self->old);
		SKIP(return, NO_DEVICES);
	}

	ASSERT_EQ(0, p2p_open_peer(&self->p));
	vfio_pci_cmd_set(self->p.b, PCI_COMMAND_MEMORY);
}

FIXTURE_TEARDOWN(parameter)
{
	write_text(self->path, self->old);
	p2p_close(&self->p);
}

#define MANY		65000

/* One mapping cannot take more entries than there are, and gives back what it took */
TEST_F_TIMEOUT(parameter, entries_run_out, 900)
{
	s64 avail;
	void *area;
	int i;

	if (strcmp(variant->val, "64000"))
		SKIP(return, "with one limit only");

	avail = dma_avail(self->p.iommu);
	area = mmap(NULL, MANY * SZ_4K, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, area);
	/* The same page again and again: nothing adjoins */
	for (i = 0; i < MANY; i++)
		ASSERT_NE(NULL, bar_mmap_at(area + i * SZ_4K, self->p.b->fd, self->p.bar,
					    PROT_READ | PROT_WRITE, 0, SZ_4K));
	EXPECT_EQ(-ENOSPC, dma_map(self->p.iommu, IOVA_BAR, area, MANY * SZ_4K, DMA_RW));
	EXPECT_EQ(avail, dma_avail(self->p.iommu));
	EXPECT_NE(1, iommu_lookup(self->p.bdf_a, IOVA_BAR, NULL));
	EXPECT_NE(1, iommu_lookup(self->p.bdf_a, IOVA_BAR + 60000UL * SZ_4K, NULL));
	EXPECT_EQ(0, dma_unmap(self->p.iommu, IOVA_BAR, MANY * SZ_4K));

	/* As many as there are do fit */
	EXPECT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, area, avail * SZ_4K, DMA_RW));
	EXPECT_EQ(0, dma_avail(self->p.iommu));
	EXPECT_EQ(-ENOSPC, dma_map(self->p.iommu, IOVA_SCRATCH + SZ_1M, self->p.scratch, SZ_4K,
				   DMA_RW));
	EXPECT_EQ(1, p2p_lands(&self->p, IOVA_BAR + (avail - 1) * SZ_4K, 0));
	vfio_pci_cmd_clear(self->p.b, PCI_COMMAND_MEMORY);
	EXPECT_NE(1, iommu_lookup(self->p.bdf_a, IOVA_BAR + (avail - 1) * SZ_4K, NULL));
	vfio_pci_cmd_set(self->p.b, PCI_COMMAND_MEMORY);
	EXPECT_EQ(1, p2p_lands(&self->p, IOVA_BAR + (avail - 1) * SZ_4K, 0));
	EXPECT_EQ(avail * SZ_4K, dma_unmap(self->p.iommu, IOVA_BAR, avail * SZ_4K));
	EXPECT_EQ(avail, dma_avail(self->p.iommu));
}

/* Mapped page by page it goes and comes back as well, and costs no more entries */
TEST_F_TIMEOUT(parameter, goes_and_comes_back, TIMEOUT)
{
	const u64 size = SZ_4M;
	s64 avail;
	int i;

	if (!strcmp(variant->val, "64000"))
		SKIP(return, "does not depend on the limit");
	if (self->p.size < size)
		SKIP(return, "the memory is too small");

	avail = dma_avail(self->p.iommu);
	self->bar = p2p_bar(&self->p, 0, size);
	ASSERT_NE(NULL, self->bar);
	ASSERT_EQ(0, dma_map(self->p.iommu, IOVA_BAR, self->bar, size, DMA_RW));
	EXPECT_EQ(avail - 1, dma_avail(self->p.iommu));
	for (i = 0; i < 2; i++) {
		EXPECT_TRUE(iommu_maps(self->p.bdf_a, IOVA_BAR, self->p.phys));
		EXPECT_TRUE(iommu_maps(self->p.bdf_a, IOVA_BAR + size - SZ_4K,
				       self->p.phys + size - SZ_4K));
		EXPECT_EQ(1, p2p_lands(&self->p, IOVA_BAR, 0));
		vfio_pci_cmd_clear(self->p.b, PCI_COMMAND_MEMORY);
		EXPECT_NE(1, iommu_lookup(self->p.bdf_a, IOVA_BAR, NULL));
		EXPECT_NE(1, iommu_lookup(self->p.bdf_a, IOVA_BAR + size - SZ_4K, NULL));
		EXPECT_EQ(avail - 1, dma_avail(self->p.iommu));
		vfio_pci_cmd_set(self->p.b, PCI_COMMAND_MEMORY);
	}
	EXPECT_EQ(size, dma_unmap(self->p.iommu, IOVA_BAR, size));
	EXPECT_NE(1, iommu_lookup(self->p.bdf_a, IOVA_BAR + size - SZ_4K, NULL));
	EXPECT_EQ(avail, dma_avail(self->p.iommu));
}

int main(int argc, char *argv[])
{
	named_devices_init(argc, argv);
	return test_harness_run(argc, argv);
}
