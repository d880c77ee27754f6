// SPDX-License-Identifier: GPL-2.0
/*
 * Device memory and what a mediated device pins, and the memory of mediated devices.
 *
 * These need the mdev_pin module, loaded or in the current directory as
 * mdev_pin.ko, which stands in for a vendor driver: write an
 * IOVA to its device to pin that page, read three numbers back (pinned, told to
 * unpin, physical address).
 *
 * Device memory cannot be pinned, but RAM beside it can.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <libvfio/memory.h>
#include <libvfio/p2p.h>

#include "../kselftest_harness.h"

#define UUID		"83b8f4f2-509f-382f-3c1e-e6bfe0fa1001"
#define VISITOR_UUID	"83b8f4f2-509f-382f-3c1e-e6bfe0fa1002"
#define TYPES		"/sys/class/mdev_bus/mdev_pin/mdev_supported_types"
#define MDEVS		"/sys/bus/mdev/devices"
#define NO_MDEV		NEEDS("the mdev_pin module, an edu device and one with memory")

struct pin_info {
	u64 pinned;
	u64 told;
	u64 phys;
};

FIXTURE(mdev) {
	struct p2p p;
	char create[128];	/* file that makes a mediated device */
	struct iommu *iommu;
	struct vfio_pci_device *mdev;
	void *area;		/* what is mapped for DMA, */
	u64 size;
	void *bar;		/* 64 KiB of B's memory in it, */
	u64 bar_iova;
	u64 pin_iova;		/* and the page to pin */
	long locked;		/* by all but the tests */
};

FIXTURE_VARIANT(mdev) {
	bool mixed;		/* RAM, the BAR, RAM, 64 KiB each */
	bool pin_ram;
};

FIXTURE_VARIANT_ADD(mdev, bar) { .mixed = false };
FIXTURE_VARIANT_ADD(mdev, bar_beside_ram) { .mixed = true };
FIXTURE_VARIANT_ADD(mdev, ram_beside_bar) { .mixed = true, .pin_ram = true };

/* Unless it is there already.  The first test to find the file loads it. */
static void load_module(void)
{
	int ret = module_load("mdev_pin.ko");

	if (ret && ret != -ENOENT && ret != -EEXIST)
		printf("# mdev_pin.ko: %s\n", strerror(-ret));
}

static bool find_type(char *create, size_t len)
{
	glob_t found;
	bool ret;

	ret = !glob(TYPES "/*-p*/create", 0, NULL, &found);
	if (ret)
		snprintf(create, len, "%s", found.gl_pathv[0]);
	globfree(&found);

	return ret;
}

static void mdev_remove(const char *uuid)
{
	char path[128];

	snprintf(path, sizeof(path), MDEVS "/%s/remove", uuid);
	write_text(path, "1");
}

/* What libvfio does for devices on the PCI bus */
static int mdev_open(struct vfio_pci_device **mdev, const char *uuid, struct iommu *iommu)
{
	char link[128], path[128];
	ssize_t len;
	int ret;

	snprintf(path, sizeof(path), MDEVS "/%s/iommu_group", uuid);
	len = readlink(path, link, sizeof(link) - 1);
	if (len < 0)
		return -errno;
	link[len] = 0;

	*mdev = dev_alloc(uuid, iommu);
	snprintf(path, sizeof(path), "/dev/vfio%.32s", strrchr(link, '/'));
	(*mdev)->group_fd = open(path, O_RDWR | O_CLOEXEC);
	if ((*mdev)->group_fd < 0)
		return -errno;

	ret = group_attach(*mdev);
	if (ret)
		return ret;

	__vfio_pci_group_get_device_fd(*mdev, uuid, NULL);
	return (*mdev)->fd < 0 ? -errno : 0;
}

static int pin(struct vfio_pci_device *mdev, u64 iova)
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

/* Put B's memory where it belongs in the area */
static bool place_bar(struct _test_data_mdev *self)
{
	return bar_mmap_at(self->bar, self->p.b->fd, self->p.bar, PROT_READ | PROT_WRITE, 0,
			   SZ_64K);
}

static void common_setup(struct __test_metadata *_metadata, struct _test_data_mdev *self,
			 const struct _fixture_variant_mdev *variant)
{
	u64 bar_at = variant->mixed ? SZ_64K : 0;
	int ret = p2p_open(&self->p, &want_mem);

	ASSERT_TRUE(!ret || ret == -ENODEV);
	if (ret)
		SKIP(return, NO_MDEV);
	load_module();
	if (!find_type(self->create, sizeof(self->create)))
		SKIP(return, NO_MDEV);

	ASSERT_EQ(0, write_text(self->create, UUID));

	self->size = variant->mixed ? 3 * SZ_64K : SZ_64K;
	self->area = ram_alloc(self->size);
	ASSERT_NE(NULL, self->area);
	self->bar = self->area + bar_at;
	self->bar_iova = IOVA_BAR + bar_at;
	self->pin_iova = (variant->pin_ram ? IOVA_BAR + 2 * SZ_64K : self->bar_iova) + SZ_4K;
	ASSERT_EQ(0, p2p_open_peer(&self->p));
	ASSERT_TRUE(place_bar(self));
	self->locked = proc_locked_kb();
}

static void tear_down(struct _test_data_mdev *self)
{
	dev_close(&self->mdev);
	iommu_close(&self->iommu);
	mdev_remove(UUID);
	munmap(self->area, self->size);
	p2p_close(&self->p);
}

FIXTURE_SETUP(mdev)
{
	common_setup(_metadata, self, variant);
}

FIXTURE_TEARDOWN(mdev)
{
	tear_down(self);
}

/* In a container that it has to itself at first */
static void open_alone(struct __test_metadata *_metadata, struct _test_data_mdev *self)
{
	self->iommu = iommu_init(MODE_VFIO_TYPE1V2_IOMMU);
	ASSERT_EQ(0, mdev_open(&self->mdev, UUID, self->iommu));
}

/* And a device that may join it */
static bool open_alone_with_another(struct __test_metadata *_metadata,
				    struct _test_data_mdev *self, char *bdf)
{
	if (pci_find(&want_testdev, 0, bdf) < 0)
		SKIP(return false, NEEDS("a pci-testdev"));

	open_alone(_metadata, self);
	return true;
}

/* What is charged for the pin, and for all of the area, in KiB */
static long pin_kb(const struct _fixture_variant_mdev *variant)
{
	return variant->pin_ram ? 4 : 0;
}

static long area_kb(const struct _fixture_variant_mdev *variant)
{
	return variant->mixed ? 128 : 0;
}

/* A refusal leaves nothing behind, however often it is asked for */
static void map_and_pin(struct __test_metadata *_metadata, struct _test_data_mdev *self,
			const struct _fixture_variant_mdev *variant, struct iommu *iommu)
{
	struct pin_info info;
	int i;

	ASSERT_EQ(0, dma_map(iommu, IOVA_BAR, self->area, self->size, DMA_RW));
	for (i = 0; i < 3; i++)
		ASSERT_EQ(variant->pin_ram ? 0 : -EINVAL, pin(self->mdev, self->pin_iova));

	info = pin_info(self->mdev);
	EXPECT_EQ(variant->pin_ram, info.pinned);
	EXPECT_EQ(0, info.told);
}

/* What is not B's memory is as it was, of @kb, and ends with the unmap */
static void expect_kept(struct __test_metadata *_metadata, struct _test_data_mdev *self,
			const struct _fixture_variant_mdev *variant, struct iommu *iommu,
			long kb)
{
	struct pin_info info = pin_info(self->mdev);

	EXPECT_EQ(variant->pin_ram, info.pinned);
	EXPECT_EQ(0, info.told);
	EXPECT_EQ(self->locked + kb, proc_locked_kb());
	EXPECT_EQ(self->size, dma_unmap(iommu, IOVA_BAR, self->size));
	info = pin_info(self->mdev);
	EXPECT_EQ(0, info.pinned);
	EXPECT_EQ(variant->pin_ram, info.told);
	EXPECT_EQ(self->locked, proc_locked_kb());
}

/* A container of its own, without an IOMMU: the pin is the only use of the memory */
TEST_F_TIMEOUT(mdev, release_drops_what_is_only_pinned, 120)
{
	open_alone(_metadata, self);

	map_and_pin(_metadata, self, variant, self->iommu);
	EXPECT_EQ(self->locked + pin_kb(variant), proc_locked_kb());

	p2p_release(&self->p, self->bar, SZ_64K);
	expect_kept(_metadata, self, variant, self->iommu, pin_kb(variant));
}

/* Mapped to an IOMMU too */
TEST_F_TIMEOUT(mdev, release_leaves_what_is_pinned_beside_it, 120)
{
	ASSERT_EQ(0, mdev_open(&self->mdev, UUID, self->p.iommu));

	map_and_pin(_metadata, self, variant, self->p.iommu);
	EXPECT_EQ(self->locked + area_kb(variant), proc_locked_kb());
	EXPECT_EQ(1, p2p_lands(&self->p, self->bar_iova, 0));

	p2p_release(&self->p, self->bar, SZ_64K);
	EXPECT_NE(1, iommu_lookup(self->p.bdf_a, self->bar_iova, NULL));
	EXPECT_EQ(0, p2p_lands(&self->p, self->bar_iova, 0));
	if (variant->pin_ram)
		EXPECT_NE(0, iommu_lookup(self->p.bdf_a, self->pin_iova, NULL));
	expect_kept(_metadata, self, variant, self->p.iommu, area_kb(variant));
	EXPECT_NE(1, iommu_lookup(self->p.bdf_a, self->pin_iova, NULL));
}

/* The user's own unmapping works as for RAM, and leaves the release nothing to do */
TEST_F_TIMEOUT(mdev, unmap_unpins, 120)
{
	struct pin_info info;

	open_alone(_metadata, self);

	map_and_pin(_metadata, self, variant, self->iommu);
	EXPECT_EQ(self->size, dma_unmap(self->iommu, IOVA_BAR, self->size));
	info = pin_info(self->mdev);
	EXPECT_EQ(0, info.pinned);
	EXPECT_EQ(variant->pin_ram, info.told);
	EXPECT_EQ(self->locked, proc_locked_kb());

	p2p_release(&self->p, self->bar, SZ_64K);
	EXPECT_EQ(0, dma_unmap(self->iommu, IOVA_BAR, self->size));
}

/* A pin that cannot be had is an error, not a page */
TEST_F_TIMEOUT(mdev, pin_of_disabled_memory_is_refused, 120)
{
	int ret;

	open_alone(_metadata, self);

	ASSERT_EQ(0, dma_map(self->iommu, IOVA_BAR, self->area, self->size, DMA_RW));
	vfio_pci_cmd_clear(self->p.b, PCI_COMMAND_MEMORY);
	ret = pin(self->mdev, self->pin_iova);
	EXPECT_EQ(variant->pin_ram, !ret);
	EXPECT_EQ(variant->pin_ram, pin_info(self->mdev).pinned);
	EXPECT_EQ(self->locked + pin_kb(variant), proc_locked_kb());
	vfio_pci_cmd_set(self->p.b, PCI_COMMAND_MEMORY);
	EXPECT_EQ(variant->pin_ram ? 0 : -EINVAL, pin(self->mdev, self->pin_iova));

	p2p_release(&self->p, self->bar, SZ_64K);
}

/* Not mapped to any IOMMU, until a group joins that has one */
TEST_F_TIMEOUT(mdev, group_that_joins_later_gets_the_bar_mapped, 120)
{
	struct vfio_pci_device *late;
	char bdf[BDF_LEN];

	if (!open_alone_with_another(_metadata, self, bdf))
		return;
	map_and_pin(_metadata, self, variant, self->iommu);

	ASSERT_EQ(0, dev_open(&late, bdf, self->iommu));
	EXPECT_TRUE(iommu_maps(bdf, self->bar_iova, self->p.phys));
	EXPECT_TRUE(iommu_maps(bdf, self->bar_iova + SZ_64K - SZ_4K,
			       self->p.phys + SZ_64K - SZ_4K));
	EXPECT_EQ(self->locked + area_kb(variant), proc_locked_kb());

	p2p_release(&self->p, self->bar, SZ_64K);
	EXPECT_NE(1, iommu_lookup(bdf, self->bar_iova, NULL));
	expect_kept(_metadata, self, variant, self->iommu, area_kb(variant));
	EXPECT_NE(1, iommu_lookup(bdf, IOVA_BAR, NULL));
	dev_close(&late);
}

/* The IOMMU group leaves, the mediated device and its pin stay */
TEST_F_TIMEOUT(mdev, group_that_leaves_keeps_the_pin, 120)
{
	struct vfio_pci_device *late;
	char bdf[BDF_LEN];
	int i;

	if (!open_alone_with_another(_metadata, self, bdf))
		return;
	ASSERT_EQ(0, dev_open(&late, bdf, self->iommu));
	map_and_pin(_metadata, self, variant, self->iommu);

	/* And joins again */
	for (i = 0; i < 2; i++) {
		EXPECT_TRUE(iommu_maps(bdf, self->bar_iova, self->p.phys));
		EXPECT_EQ(self->locked + area_kb(variant), proc_locked_kb());
		dev_close(&late);
		EXPECT_EQ(variant->pin_ram, pin_info(self->mdev).pinned);
		EXPECT_EQ(self->locked + pin_kb(variant), proc_locked_kb());
		if (!i)
			ASSERT_EQ(0, dev_open(&late, bdf, self->iommu));
	}

	p2p_release(&self->p, self->bar, SZ_64K);
	expect_kept(_metadata, self, variant, self->iommu, pin_kb(variant));
}

/*
 * Another process maps memory of its own and says which page is first.  Told to go on it
 * says what it is charged, and told so again it unmaps, and ends.
 */
static int map_from_afar(struct iommu *iommu, void *mem, int sock)
{
	u64 pfn;
	long locked;
	char go;

	die_with_parent();
	/* From here on it is a page of its own, if it is private memory */
	mmio_write32(mem, 0);
	if (dma_map(iommu, IOVA_BAR, mem, SZ_64K, DMA_RW) || pages_of(mem, 1, &pfn) ||
	    write(sock, &pfn, sizeof(pfn)) != sizeof(pfn))
		return 1;
	if (read(sock, &go, 1) != 1)
		return 2;
	locked = proc_locked_kb();
	if (write(sock, &locked, sizeof(locked)) != sizeof(locked) || read(sock, &go, 1) != 1)
		return 3;
	if (dma_unmap(iommu, IOVA_BAR, SZ_64K) != SZ_64K || proc_locked_kb())
		return 4;

	return 0;
}

/* The process is there, and @pfn is the page; @sock is to be told to go on */
static pid_t start_from_afar(struct iommu *iommu, void *mem, int *sock, u64 *pfn)
{
	int pair[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
		return -1;
	pid = fork();
	if (!pid) {
		close(pair[0]);
		_exit(map_from_afar(iommu, mem, pair[1]));
	}
	close(pair[1]);
	*sock = pair[0];
	if (pid > 0 && read(*sock, pfn, sizeof(*pfn)) != sizeof(*pfn))
		return -1;

	return pid;
}

static long charged_from_afar(int sock)
{
	long locked;

	if (write(sock, "", 1) != 1 || read(sock, &locked, sizeof(locked)) != sizeof(locked))
		return -1;

	return locked;
}

static int end_from_afar(int sock, pid_t pid)
{
	int status;

	if (write(sock, "", 1) != 1)
		return -1;
	close(sock);
	if (waitpid(pid, &status, 0) != pid)
		return -1;

	return status;
}

/* What is pinned is the memory of who mapped it, and who is charged, whoever asks */
TEST_F_TIMEOUT(mdev, memory_of_another_process_is_pinned, 120)
{
	struct pin_info info;
	u64 pfn;
	long locked;
	void *mem;
	pid_t pid;
	int sock;

	open_alone(_metadata, self);

	mem = ram_alloc(SZ_64K);
	ASSERT_NE(NULL, mem);
	locked = proc_locked_kb();
	pid = start_from_afar(self->iommu, mem, &sock, &pfn);
	ASSERT_LT(0, pid);
	ASSERT_EQ(0, pin(self->mdev, IOVA_BAR));
	info = pin_info(self->mdev);
	EXPECT_EQ(1, info.pinned);
	EXPECT_EQ(pfn * SZ_4K, info.phys);
	EXPECT_EQ(SZ_4K / SZ_1K, charged_from_afar(sock));
	EXPECT_EQ(locked, proc_locked_kb());

	EXPECT_EQ(0, end_from_afar(sock, pid));
	info = pin_info(self->mdev);
	EXPECT_EQ(0, info.pinned);
	EXPECT_EQ(1, info.told);
	EXPECT_EQ(locked, proc_locked_kb());
}

/* Memory of fs-dax is refused when it is to be pinned, if nobody had to pin it before */
TEST_F_TIMEOUT(mdev, fs_dax_of_another_process_is_refused, 120)
{
	char dir[PMEM_DIR_LEN], path[64];
	const char *why;
	u64 pfn;
	void *mem;
	pid_t pid;
	int sock;
	int fd;

	why = pmem_mount(dir, "dax");
	if (why)
		SKIP(return, "%s", why);
	open_alone(_metadata, self);

	snprintf(path, sizeof(path), "%s/file", dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, ftruncate(fd, SZ_64K));
	mem = mmap(NULL, SZ_64K, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ASSERT_NE(MAP_FAILED, mem);
	memset(mem, RAM_BYTE, SZ_64K);
	pid = start_from_afar(self->iommu, mem, &sock, &pfn);
	ASSERT_LT(0, pid);
	EXPECT_EQ(-EOPNOTSUPP, pin(self->mdev, IOVA_BAR));
	EXPECT_EQ(0, pin_info(self->mdev).pinned);
	EXPECT_EQ(0, charged_from_afar(sock));
	EXPECT_EQ(0, ftruncate(fd, 0));

	EXPECT_EQ(0, end_from_afar(sock, pid));
	munmap(mem, SZ_64K);
	close(fd);
	EXPECT_EQ(0, pmem_unmount(dir));
}

/* A bus driver that has not opted in */
TEST_F_TIMEOUT(mdev, memory_of_a_mediated_device_is_refused, 120)
{
	u64 last = self->size - SZ_4K;
	void *mem;

	ASSERT_EQ(0, mdev_open(&self->mdev, UUID, self->p.iommu));
	mem = mmap(self->area + last, SZ_4K, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
		   self->mdev->fd, 0);
	ASSERT_NE(MAP_FAILED, mem);

	/* Alone, and behind all the rest */
	EXPECT_EQ(-EOPNOTSUPP, dma_map(self->p.iommu, IOVA_BAR + last, mem, SZ_4K, DMA_RW));
	EXPECT_NE(1, iommu_lookup(self->p.bdf_a, IOVA_BAR + last, NULL));
	EXPECT_EQ(-EOPNOTSUPP, dma_map(self->p.iommu, IOVA_BAR, self->area, self->size, DMA_RW));
	EXPECT_NE(1, iommu_lookup(self->p.bdf_a, IOVA_BAR, NULL));
	EXPECT_NE(1, iommu_lookup(self->p.bdf_a, self->bar_iova, NULL));
	EXPECT_EQ(self->locked, proc_locked_kb());
	munmap(mem, SZ_4K);
}

#define MAX_PINS	4

/* Somebody who maps the area, pins, and unmaps it, and somebody who comes and pins */
struct racer {
	pthread_t thread;
	struct iommu *iommu;
	struct vfio_pci_device *mdev;
	void *area;
	u64 size;
	u64 iova;
	u64 pin_iova;
	bool *stop;
	unsigned long turns;
	unsigned long errors;
	struct racer *unmapper;
};

static void *race_unmap(void *arg)
{
	struct racer *r = arg;
	s64 ret;

	while (!__atomic_load_n(r->stop, __ATOMIC_RELAXED)) {
		ret = dma_map(r->iommu, r->iova, r->area, r->size, DMA_RW);
		if (ret) {
			r->errors += ret != -EFAULT;
			continue;
		}
		pin(r->mdev, r->pin_iova);
		/* Ours, whether B was released meanwhile or not */
		ret = dma_unmap(r->iommu, r->iova, r->size);
		r->errors += ret != (s64)r->size;
		__atomic_fetch_add(&r->turns, 1, __ATOMIC_RELAXED);
	}

	return NULL;
}

/*
 * Is told to unpin one time and not the next.  An unmap gives up, with an oops, on vendor
 * drivers that have pinned again each of ten times that it looks.  So do not come that
 * often during one.
 */
static void *race_open(void *arg)
{
	unsigned long turn, last = 0, pins = 0;
	struct racer *r = arg;

	while (!__atomic_load_n(r->stop, __ATOMIC_RELAXED)) {
		turn = __atomic_load_n(&r->unmapper->turns, __ATOMIC_RELAXED);
		if (turn != last) {
			last = turn;
			pins = 0;
		}
		if (pins++ >= MAX_PINS) {
			usleep(1000);
			continue;
		}
		r->mdev->fd = dev_get_fd(r->mdev);
		if (r->mdev->fd < 0) {
			r->errors++;
			break;
		}
		pin(r->mdev, r->pin_iova);
		usleep(1000);
		fd_close(&r->mdev->fd);
		r->turns++;
	}

	return NULL;
}

/*
 * The last ones: where they do not end, the devices stay in use.  One thread pins RAM
 * beside the BAR, and one the BAR, if it can.
 */
FIXTURE(race) {
	struct _test_data_mdev mdev;
	struct vfio_pci_device *visitor;
};

FIXTURE_SETUP(race)
{
	static const struct _fixture_variant_mdev mixed = { .mixed = true };

	common_setup(_metadata, &self->mdev, &mixed);
}

FIXTURE_TEARDOWN(race)
{
	dev_close(&self->visitor);
	mdev_remove(VISITOR_UUID);
	tear_down(&self->mdev);
}

/* Whoever unmaps, nothing stays pinned, charged or mapped */
TEST_F_TIMEOUT(race, release_racing_unmap_with_pins, 240)
{
	struct _test_data_mdev *m = &self->mdev;
	struct p2p *p = &m->p;
	bool stop = false;
	struct racer r[3];
	s64 avail;
	int round, i;

	ASSERT_EQ(0, mdev_open(&m->mdev, UUID, p->iommu));
	ASSERT_EQ(0, write_text(m->create, VISITOR_UUID));
	ASSERT_EQ(0, mdev_open(&self->visitor, VISITOR_UUID, p->iommu));
	fd_close(&self->visitor->fd);
	avail = dma_avail(p->iommu);

	for (i = 0; i < 3; i++) {
		r[i] = (struct racer) {
			.iommu = p->iommu,
			.mdev = i < 2 ? m->mdev : self->visitor,
			.area = m->area,
			.size = m->size,
			.iova = IOVA_BAR + i % 2 * SZ_16M,
			.pin_iova = i % 2 ? m->bar_iova + SZ_16M : IOVA_BAR,
			.stop = &stop,
			.unmapper = &r[0],
		};
		ASSERT_EQ(0, pthread_create(&r[i].thread, NULL, i < 2 ? race_unmap : race_open,
					    &r[i]));
	}

	for (round = 0; round < 60; round++) {
		usleep(20000 + round * 3700 % 10000);
		/* RAM in its place, so that the others go on */
		ASSERT_EQ(m->bar, mmap(m->bar, SZ_64K, PROT_READ | PROT_WRITE,
				       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
		dev_close(&p->b);
		EXPECT_EQ(0, p2p_lands(p, m->bar_iova, 0));
		EXPECT_EQ(0, p2p_lands(p, m->bar_iova + SZ_16M, 0));
		ASSERT_EQ(0, p2p_open_peer(p));
		ASSERT_TRUE(place_bar(m));
	}

	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	for (i = 0; i < 3; i++) {
		pthread_join(r[i].thread, NULL);
		printf("# %lu turns\n", r[i].turns);
		EXPECT_EQ(0, r[i].errors);
		EXPECT_LT(0, r[i].turns);
	}
	EXPECT_EQ(0, pin_info(m->mdev).pinned);
	EXPECT_EQ(m->locked, proc_locked_kb());
	EXPECT_EQ(avail, dma_avail(p->iommu));
}

int main(int argc, char *argv[])
{
	named_devices_init(argc, argv);
	return test_harness_run(argc, argv);
}
