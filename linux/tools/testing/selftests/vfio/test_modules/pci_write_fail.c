// SPDX-License-Identifier: GPL-2.0
/*
 * Writes to the command register of one PCI device fail as long as this module is
 * loaded, for tests.  Real ones fail for reasons that cannot be had on purpose.
 */
#include <linux/module.h>
#include <linux/pci.h>

static char *device;
module_param(device, charp, 0444);
MODULE_PARM_DESC(device, "address of the device, such as 0000:01:00.0");

static struct pci_ops pci_write_fail_ops;
static struct pci_dev *pci_write_fail_pdev;
static struct pci_ops *pci_write_fail_real;

static int pci_write_fail_write(struct pci_bus *bus, unsigned int devfn, int where, int size,
				u32 val)
{
	if (devfn == pci_write_fail_pdev->devfn && where == PCI_COMMAND)
		return PCIBIOS_SET_FAILED;

	return pci_write_fail_real->write(bus, devfn, where, size, val);
}

static int __init pci_write_fail_init(void)
{
	unsigned int domain, bus, slot, func;
	struct pci_dev *pdev;

	if (!device || sscanf(device, "%x:%x:%x.%x", &domain, &bus, &slot, &func) != 4)
		return -EINVAL;

	pdev = pci_get_domain_bus_and_slot(domain, bus, PCI_DEVFN(slot, func));
	if (!pdev)
		return -ENODEV;

	pci_write_fail_pdev = pdev;
	pci_write_fail_real = pdev->bus->ops;
	pci_write_fail_ops = *pdev->bus->ops;
	pci_write_fail_ops.write = pci_write_fail_write;
	pci_bus_set_ops(pdev->bus, &pci_write_fail_ops);
	return 0;
}

static void __exit pci_write_fail_exit(void)
{
	pci_bus_set_ops(pci_write_fail_pdev->bus, pci_write_fail_real);
	pci_dev_put(pci_write_fail_pdev);
}

module_init(pci_write_fail_init);
module_exit(pci_write_fail_exit);

MODULE_DESCRIPTION("PCI device whose command register cannot be written");
MODULE_LICENSE("GPL");
