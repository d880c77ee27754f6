// SPDX-License-Identifier: GPL-2.0
/*
 * The modules can be unloaded at once when everything is closed: what the kernel left
 * to be done later is done by then, or is waited for, and does not keep them in use.
 *
 * Where vmtest.sh has put the modules they are loaded again, for another round;
 * elsewhere they stay unloaded, so this is not run by default.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <libvfio/p2p.h>

#include "../kselftest_harness.h"

#define MODULES		"/modules"
#define VIEW		"/sys/kernel/debug/vfio/type1_device_memory"
#define MAX_MODULES	16

#define TIMEOUT		120

/* Nothing but a time that is enough for an emulator with other things to do */
FIXTURE(unload) {
};

FIXTURE_SETUP(unload)
{
	char bdf[BDF_LEN];

	if (pci_find(&want_edu, 0, bdf) < 0 || pci_find(&want_mem, 0, bdf) < 0)
		SKIP(return, NEEDS("an edu device and one with memory"));
}

FIXTURE_TEARDOWN(unload)
{
}

struct modules {
	char file[MAX_MODULES][64];	/* in the order to load them */
	int count;
};

static bool modules_read(struct modules *m)
{
	FILE *f;

	m->count = 0;
	f = fopen(MODULES "/order", "re");
	if (!f)
		return false;

	while (m->count < MAX_MODULES && fscanf(f, "%63s", m->file[m->count]) == 1)
		m->count++;
	fclose(f);

	return m->count > 0;
}

static int unload(const char *file)
{
	char name[64];
	char *p;

	snprintf(name, sizeof(name), "%s", file);
	for (p = name; *p; p++) {
		if (*p == '-')
			*p = '_';
		if (!strcmp(p, ".ko"))
			*p-- = '\0';
	}

	return syscall(SYS_delete_module, name, O_NONBLOCK) ? -errno : 0;
}

static int load(const char *file)
{
	char path[128];

	snprintf(path, sizeof(path), MODULES "/%s", file);
	return module_load(path);
}

/* Some mappings in two containers, and then nothing open any more */
static void use_devices(struct __test_metadata *_metadata, int round)
{
	struct iommu *iommu;
	int i;
	struct p2p p;
	void *bar;

	ASSERT_EQ(0, p2p_open(&p, &want_mem));
	iommu = iommu_init(MODE_VFIO_TYPE1V2_IOMMU);
	ASSERT_EQ(0, p2p_open_peer_in(&p, iommu));
	bar = p2p_bar(&p, 0, SZ_1M);
	ASSERT_NE(NULL, bar);
	for (i = 0; i < 16; i++) {
		ASSERT_EQ(0, dma_map(iommu, IOVA_BAR + i * SZ_1M, bar, SZ_1M, DMA_RW));
		ASSERT_EQ(0, dma_map(p.iommu, IOVA_BAR + i * SZ_1M, bar, SZ_1M, DMA_RW));
	}

	/* Device first, or the mappers first, or the mappings first */
	if (round % 3 == 1) {
		iommu_close(&iommu);
		p2p_close(&p);
	} else if (round % 3 == 2) {
		dma_unmap(iommu, IOVA_BAR, 16 * SZ_1M);
	}
	munmap(bar, SZ_1M);
	p2p_close(&p);
	iommu_close(&iommu);
}

/* Nothing that belongs to the modules runs, or is left, after they are gone */
TEST_F_TIMEOUT(unload, modules_unload_as_soon_as_everything_is_closed, TIMEOUT)
{
	int i, round, rounds = 6;
	struct modules m;

	if (!modules_read(&m)) {
		snprintf(m.file[0], sizeof(m.file[0]), "vfio_iommu_type1");
		snprintf(m.file[1], sizeof(m.file[1]), "vfio-pci");
		m.count = 2;
		rounds = 1;
	}

	for (round = 0; round < rounds; round++) {
		use_devices(_metadata, round);
		if (round & 1) {
			/* The backend alone can go, and come back */
			EXPECT_EQ(0, unload("vfio_iommu_type1"));
			if (rounds > 1) {
				ASSERT_EQ(0, load("vfio_iommu_type1.ko"));
				use_devices(_metadata, round);
			}
		}
		for (i = m.count - 1; i >= 0; i--)
			EXPECT_EQ(0, unload(m.file[i]));
		for (i = 0; rounds > 1 && i < m.count; i++)
			ASSERT_EQ(0, load(m.file[i]));
	}
}

/*
 * An open takes turns with an unload: debugfs warns of one that finds the module's last
 * reference gone and the module not marked as going yet, whosever module it is.  What is
 * open is read, and closed, against the unload.
 */
static pthread_mutex_t opening = PTHREAD_MUTEX_INITIALIZER;

static int unload_in_turn(const char *name)
{
	int ret;

	pthread_mutex_lock(&opening);
	ret = unload(name);
	pthread_mutex_unlock(&opening);

	return ret;
}

static void *open_and_read(void *arg)
{
	char buf[256];
	bool *stop = arg;
	int fd;

	while (!__atomic_load_n(stop, __ATOMIC_RELAXED)) {
		pthread_mutex_lock(&opening);
		fd = open(VIEW, O_RDONLY | O_CLOEXEC);
		pthread_mutex_unlock(&opening);
		if (fd < 0)
			continue;
		while (read(fd, buf, sizeof(buf)) > 0)
			;
		close(fd);
	}

	return NULL;
}

/* The file in debugfs keeps the module while it is open, and not after */
TEST_F_TIMEOUT(unload, module_unloads_when_the_view_is_closed, TIMEOUT)
{
	int fd, round, unloaded = 0, busy = 0, ret;
	bool stop = false;
	pthread_t thread;
	struct modules m;

	if (!modules_read(&m))
		SKIP(return, "the module could not be loaded again");
	if (access("/sys/kernel/debug/vfio", F_OK))
		SKIP(return, "this kernel has nothing of vfio in debugfs");

	fd = open(VIEW, O_RDONLY | O_CLOEXEC);
	ASSERT_LE(0, fd);
	EXPECT_EQ(-EAGAIN, unload("vfio_iommu_type1"));
	close(fd);

	ASSERT_EQ(0, pthread_create(&thread, NULL, open_and_read, &stop));
	for (round = 0; round < 300 && unloaded < 20; round++) {
		ret = unload_in_turn("vfio_iommu_type1");
		if (ret == -EAGAIN) {
			busy++;
			usleep(round * 37 % 1000);
			continue;
		}
		ASSERT_EQ(0, ret);
		unloaded++;
		EXPECT_NE(0, access(VIEW, F_OK));
		ASSERT_EQ(0, load("vfio_iommu_type1.ko"));
		if (unloaded % 5 == 0)
			use_devices(_metadata, unloaded);
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	printf("# unloaded %d times, busy %d times\n", unloaded, busy);
	EXPECT_LT(0, unloaded);
}

int main(int argc, char *argv[])
{
	named_devices_init(argc, argv);
	return test_harness_run(argc, argv);
}
