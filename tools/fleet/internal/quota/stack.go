package quota

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/deploy/blueprint"
	"a3os.app/libs/id"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/aws/stack"
)

// Resource is one resource of a CloudFormation stack, with what limits and prices depend on.
type Resource struct {
	// Type as CloudFormation writes it.
	Type string
	// VCPU and GB that its task takes; a service's alone.
	VCPU, GB float64
	// Once is how many vCPUs a task takes that is run to its end; of a definition's that no service keeps.
	Once float64
	// Class and GB of a database server; Standby says that there are two.
	Class   string
	Standby bool
	// Interface says of an endpoint that it stands in each zone, and is paid for; Zones in how many it or a load balancer does.
	Interface bool
	Zones     int
	// Public says of a load balancer that it has a public address in each zone.
	Public bool
}

// Tiers that are planned for: in a shared database server, with a server of the tenant's own, and in an account of its own, of which the plane's
// account has what leads there.
const (
	database  = "database"
	dedicated = "dedicated"
	account   = "account"
	// inItsAccount is what the tenant's own account has of the tier account.
	inItsAccount = "account, in its own"
)

// Stack is what the templates of a set's stacks hold, as they are rendered for a plane of `prod`. What they are rendered with besides doesn't count.
func Stack(b *blueprint.Blueprint, tier string) ([]Resource, error) {
	const any64 = "0000000000000000000000000000000000000000000000000000000000000000"
	r, err := platform.ParseRelease("0.0.0@sha256:" + any64)
	if err != nil {
		return nil, err
	}
	in := stack.Input{Place: stack.Place{Account: "000000000000", Region: "us-east-1", Plane: "prod", Domain: "a3os.example"}, Release: r, Image: "sha256:" + any64, Running: true,
		Set: platform.Set{Blueprint: b, Slug: "tenant", Tier: registryv1.IsolationTier_ISOLATION_TIER_DATABASE}}
	if tier != database {
		in.Set.Tier = registryv1.IsolationTier_ISOLATION_TIER_DEDICATED
	}
	// The plane's own set has one for what lasts and one for what a release changes.
	renders := []func(stack.Input) (*stack.Template, error){stack.Plane, stack.Control}
	if b.Scope == blueprint.ScopeTenant {
		in.Set.Tenant, renders = id.NewTenant(), []func(stack.Input) (*stack.Template, error){stack.Tenant}
	}
	switch tier {
	case account:
		in.Place.Hub, renders = "000000000001", []func(stack.Input) (*stack.Template, error){stack.Link}
	case inItsAccount:
		in.Place.Hub, renders = "000000000001", []func(stack.Input) (*stack.Template, error){stack.Account, stack.Tenant}
	}
	return counted(b, in, renders)
}

// counted counts what templates hold.
func counted(b *blueprint.Blueprint, in stack.Input, renders []func(stack.Input) (*stack.Template, error)) ([]Resource, error) {
	var all []Resource
	for _, render := range renders {
		template, err := render(in)
		if err != nil {
			return nil, fmt.Errorf("render the stack of %s: %w", b.Name, err)
		}
		text, err := template.JSON()
		if err != nil {
			return nil, err
		}
		resources, err := read(text)
		if err != nil {
			return nil, err
		}
		all = append(all, resources...)
	}
	return all, nil
}

// read counts a template.
func read(text []byte) ([]Resource, error) {
	type properties struct {
		TaskDefinition   struct{ Ref string }
		CPU              string `json:"Cpu"`
		Memory           string
		DBInstanceClass  string
		AllocatedStorage string
		MultiAZ          bool
		VpcEndpointType  string
		SubnetIds        []any
		Subnets          []any
		Scheme           string
	}
	var template struct {
		Resources map[string]struct {
			Type       string
			Properties json.RawMessage
		}
	}
	if err := json.Unmarshal(text, &template); err != nil {
		return nil, fmt.Errorf("read the template: %w", err)
	}
	own := func(name string) (p properties, err error) {
		switch template.Resources[name].Type {
		case "AWS::ECS::Service", "AWS::ECS::TaskDefinition", "AWS::RDS::DBInstance", "AWS::EC2::VPCEndpoint", "AWS::ElasticLoadBalancingV2::LoadBalancer":
			err = json.Unmarshal(template.Resources[name].Properties, &p)
		}
		return p, err
	}
	var all []Resource
	kept := map[string]bool{}
	for name := range template.Resources {
		p, err := own(name)
		if err != nil {
			return nil, fmt.Errorf("read %s of the template: %w", name, err)
		}
		kept[p.TaskDefinition.Ref] = true
	}
	for _, name := range slices.Sorted(maps.Keys(template.Resources)) {
		p, err := own(name)
		if err != nil {
			return nil, fmt.Errorf("read %s of the template: %w", name, err)
		}
		task, err := own(p.TaskDefinition.Ref)
		if err != nil {
			return nil, fmt.Errorf("read the task of %s: %w", name, err)
		}
		r := Resource{Type: template.Resources[name].Type, Class: p.DBInstanceClass, Standby: p.MultiAZ, Interface: p.VpcEndpointType == "Interface", Zones: len(p.SubnetIds) + len(p.Subnets), Public: p.Scheme == "internet-facing",
			VCPU: number(task.CPU) / 1024, GB: number(task.Memory) / 1024}
		if r.Type == "AWS::ECS::TaskDefinition" && !kept[name] {
			r.Once = number(p.CPU) / 1024
		}
		if r.Class != "" {
			r.GB = number(p.AllocatedStorage)
		}
		all = append(all, r)
	}
	return all, nil
}

// number is one that stack wrote; what isn't there is none.
func number(text string) float64 {
	n, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return 0
	}
	return n
}
