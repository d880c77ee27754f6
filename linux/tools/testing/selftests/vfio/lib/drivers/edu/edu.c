// SPDX-License-Identifier: GPL-2.0-only
/*
 * QEMU's "edu" device has a buffer, and copies between that and memory.
 *
 * A transfer takes it 100 ms.  It does not tell of transfers that the IOMMU refused, and
 * it uses no more than the low 28 bits of an address, unless it was made with
 *
 *	-device edu,dma_mask=0xffffffffffffffff
 */
#include <errno.h>
#include <stdint.h>
#include <unistd.h>

#include <linux/io.h>
#include <linux/sizes.h>

#include <libvfio.h>

#define EDU_VENDOR_ID		0x1234
#define EDU_DEVICE_ID		0x11e8

#define EDU_IDENT		0x00
#define EDU_IDENT_MASK		0xff
#define EDU_IDENT_VALUE		0xed
#define EDU_IRQ_RAISE		0x60
#define EDU_IRQ_ACK		0x64
#define EDU_DMA_SRC		0x80
#define EDU_DMA_DST		0x88
#define EDU_DMA_COUNT		0x90
#define EDU_DMA_CMD		0x98
#define EDU_DMA_CMD_RUN		0x1
#define EDU_DMA_CMD_TO_MEMORY	0x2

/* Where transfers see the buffer.  Some versions of QEMU abort if all of it is used */
#define EDU_BUFFER		0x40000
#define EDU_BUFFER_SIZE		SZ_4K
#define EDU_MAX_SIZE		(EDU_BUFFER_SIZE / 2)

/* What is a matter of seconds */
#define EDU_MAX_COUNT		16

#define EDU_TIMEOUT_MS		10000

/* The copies that memcpy_start() was asked for: all but the first are to be started */
struct edu_state {
	u64 src;
	u64 dst;
	u64 size;
	u64 left;
	bool to_memory;
};

static struct edu_state *to_edu_state(struct vfio_pci_device *device)
{
	return device->driver.region.vaddr;
}

static void *edu_registers(struct vfio_pci_device *device)
{
	return device->bars[0].vaddr;
}

static int edu_probe(struct vfio_pci_device *device)
{
	if (!vfio_pci_device_match(device, EDU_VENDOR_ID, EDU_DEVICE_ID))
		return -EINVAL;

	VFIO_ASSERT_NOT_NULL(edu_registers(device));

	if ((readl(edu_registers(device) + EDU_IDENT) & EDU_IDENT_MASK) != EDU_IDENT_VALUE) {
		dev_err(device, "edu: Unknown identification\n");
		return -EINVAL;
	}

	return 0;
}

static int edu_wait(struct vfio_pci_device *device)
{
	void *registers = edu_registers(device);
	int ms;

	for (ms = 0; ms < EDU_TIMEOUT_MS; ms++) {
		if (!(readq(registers + EDU_DMA_CMD) & EDU_DMA_CMD_RUN))
			return 0;

		usleep(1000);
	}

	dev_err(device, "edu: A transfer does not end\n");
	return -ETIMEDOUT;
}

/* Half a copy: from memory to the buffer, or from the buffer to memory */
static void edu_start(struct vfio_pci_device *device)
{
	struct edu_state *edu = to_edu_state(device);
	void *registers = edu_registers(device);
	u64 cmd = EDU_DMA_CMD_RUN;

	if (edu->to_memory)
		cmd |= EDU_DMA_CMD_TO_MEMORY;

	writeq(edu->to_memory ? EDU_BUFFER : edu->src, registers + EDU_DMA_SRC);
	writeq(edu->to_memory ? edu->dst : EDU_BUFFER, registers + EDU_DMA_DST);
	writeq(edu->size, registers + EDU_DMA_COUNT);
	writeq(cmd, registers + EDU_DMA_CMD);
}

static void edu_init(struct vfio_pci_device *device)
{
	struct vfio_pci_driver *driver = &device->driver;

	VFIO_ASSERT_GE(driver->region.size, sizeof(struct edu_state));

	vfio_pci_cmd_set(device, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);

	/* There is no way to stop what another user may have left running */
	VFIO_ASSERT_EQ(edu_wait(device), 0);

	vfio_pci_msi_enable(device, 0, 1);

	driver->msi = 0;
	driver->max_memcpy_size = EDU_MAX_SIZE;
	driver->max_memcpy_count = EDU_MAX_COUNT;
}

static void edu_remove(struct vfio_pci_device *device)
{
	edu_wait(device);
	vfio_pci_msi_disable(device);
	vfio_pci_cmd_clear(device, PCI_COMMAND_MASTER);
}

static void edu_memcpy_start(struct vfio_pci_device *device, iova_t src, iova_t dst,
			     u64 size, u64 count)
{
	struct edu_state *edu = to_edu_state(device);

	*edu = (struct edu_state) {
		.src = src,
		.dst = dst,
		.size = size,
		.left = count,
	};

	edu_start(device);
}

static int edu_memcpy_wait(struct vfio_pci_device *device)
{
	struct edu_state *edu = to_edu_state(device);
	int ret;

	for (;;) {
		ret = edu_wait(device);
		if (ret)
			return ret;

		if (edu->to_memory && !--edu->left)
			return 0;

		edu->to_memory = !edu->to_memory;
		edu_start(device);
	}
}

static void edu_send_msi(struct vfio_pci_device *device)
{
	void *registers = edu_registers(device);

	writel(1, registers + EDU_IRQ_RAISE);
	writel(1, registers + EDU_IRQ_ACK);
}

const struct vfio_pci_driver_ops edu_ops = {
	.name = "edu",
	.probe = edu_probe,
	.init = edu_init,
	.remove = edu_remove,
	.memcpy_start = edu_memcpy_start,
	.memcpy_wait = edu_memcpy_wait,
	.send_msi = edu_send_msi,
};
