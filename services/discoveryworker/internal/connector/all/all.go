// Package all is the table of connectors: the one place that knows every kind.
package all

import (
	"errors"

	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"
	"a3os.app/services/discoveryworker/internal/connector"
	"a3os.app/services/discoveryworker/internal/connector/csv"
	"a3os.app/services/discoveryworker/internal/connector/postgres"
	"a3os.app/services/discoveryworker/internal/connector/unix"
)

// Machine is what a tenant may see of the machine that the worker runs on.
type Machine struct {
	// Allowed says that it may read it; the plane's configuration names the tenants that may.
	Allowed bool
	// Reader asks for what only root may read; nil where there is no machine reader.
	Reader unix.Reader
}

// For answers the connector of the settings' kind. Reading this machine is refused unless it is allowed. Errors are permanent.
func For(settings *integrationsv1.Settings, machine Machine) (connector.Connector, error) {
	switch settings.GetConnector().(type) {
	case *integrationsv1.Settings_Postgres:
		return postgres.New(), nil
	case *integrationsv1.Settings_Csv:
		return csv.New(), nil
	case *integrationsv1.Settings_Unix:
		if !machine.Allowed {
			return nil, connector.Permanent(errors.New("this tenant may not read the worker's own machine: only tenants that the plane's configuration names may"))
		}
		return unix.New("/", machine.Reader), nil
	}
	return nil, connector.Permanent(errors.New("the settings name no connector that this release knows: choose postgres, unix or csv"))
}
