package command

import (
	"fmt"

	"github.com/spf13/cobra"
)

func (a *app) repairCommand() *cobra.Command {
	var tenant string
	c := &cobra.Command{Use: "repair --tenant TENANT", Short: "Bring a tenant's set back to what the registry says that it is", Args: exactly(),
		Long: `repair puts right what fleet status calls drift: a component that is missing, another release than the registry says, a set that runs though
its tenant is suspended. It is done when it is asked for and never by itself: a set that changed without an operation may have been
changed by somebody who should not have. It changes nothing that is as it should be, and no tenant.`,
		Example: `  fleet repair --tenant acme`,
		RunE: func(c *cobra.Command, _ []string) error {
			p, err := a.plane()
			if err != nil {
				return err
			}
			changed, err := p.Repair(c.Context(), tenant)
			if err == nil && !changed {
				_, _ = fmt.Fprintf(a.out, "%s is as it should be: nothing changed\n", tenant)
			}
			return err
		}}
	c.Flags().StringVar(&tenant, "tenant", "", "id or slug")
	_ = c.MarkFlagRequired("tenant")
	return c
}
