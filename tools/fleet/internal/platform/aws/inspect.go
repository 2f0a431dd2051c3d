package aws

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/aws/aws-sdk-go-v2/service/ecs"

	"a3os.app/deploy/blueprint"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/fleet/internal/platform/aws/drift"
	"a3os.app/tools/fleet/internal/platform/aws/stack"
)

// Inspect implements platform.Inspector: what of the set's stack isn't as the release's template has it.
func (p *Platform) Inspect(ctx context.Context, s platform.Set, r platform.Release) ([]platform.Difference, error) {
	t, template, err := p.released(ctx, s, r)
	if err != nil {
		return nil, err
	}
	return drift.Find(ctx, t.cfg, t.stackName(), template)
}

// InspectPlane implements platform.PlaneInspector: services in the plane's cluster that no set has, and those of others than the plane's own set that a load balancer
// sends to, or that are found by a name of that set's; what a name or a load balancer of that set's leads to besides its tasks; and keys of who left. In the plane's account nothing else is behind a load balancer; what is reads what is meant for the gateway, or,
// where a certificate is asked for, has clients meet a closed door.
func (p *Platform) InspectPlane(ctx context.Context, sets []platform.Set) ([]platform.Difference, error) {
	cfg, err := p.config(ctx)
	if err != nil {
		return nil, err
	}
	place, err := p.place(ctx)
	if err != nil {
		return nil, err
	}
	known, own, underWay := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, s := range append(slices.Clone(sets), p.Own) {
		if s.Blueprint == nil {
			underWay[s.Name()] = s.Account == ""
			continue
		}
		for _, c := range s.Blueprint.Components {
			name := place.Service(s.Name(), c.Name)
			own[name], known[name] = s.Tenant.IsZero(), s.Account == ""
		}
	}
	leads, err := p.leadsToThePlane(ctx, cfg, place)
	if err != nil {
		return nil, err
	}
	out, err := leads.astray(ctx, cfg, place)
	if err != nil {
		return nil, err
	}
	orphans, err := p.orphanKeys(ctx, cfg, place, sets)
	if err != nil {
		return nil, err
	}
	out = append(out, orphans...)
	say := func(name, format string, args ...any) {
		out = append(out, platform.Difference{Resource: name, Reason: "service " + name + " of cluster " + place.Cluster() + " " + fmt.Sprintf(format, args...),
			Next: "find out who did it (CloudTrail), then aws ecs update-service --cluster " + place.Cluster() + " --service " + name + " --desired-count 0"})
	}
	client := ecs.NewFromConfig(cfg)
	const most = 10 // that are described at once
	pages := ecs.NewListServicesPaginator(client, &ecs.ListServicesInput{Cluster: sdk.String(place.Cluster()), MaxResults: sdk.Int32(most)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, fmt.Errorf("list the services of cluster %s: %w", place.Cluster(), err)
		}
		var ask []string
		for _, arn := range page.ServiceArns {
			name := arn[strings.LastIndex(arn, "/")+1:]
			tenant, _, _ := strings.Cut(name, "-")
			switch {
			case own[name]:
			case known[name], underWay[tenant]:
				ask = append(ask, name)
			default:
				say(name, "is of no set that is there by the registry")
			}
		}
		if len(ask) == 0 {
			continue
		}
		got, err := client.DescribeServices(ctx, &ecs.DescribeServicesInput{Cluster: sdk.String(place.Cluster()), Services: ask})
		if err != nil {
			return nil, fmt.Errorf("look at services of cluster %s: %w", place.Cluster(), err)
		}
		for _, s := range got.Services {
			for _, b := range s.LoadBalancers {
				say(sdk.ToString(s.ServiceName), "is behind the target group %s, and no tenant's is to be behind any: it is sent what others' clients say", sdk.ToString(b.TargetGroupArn))
			}
			for _, r := range s.ServiceRegistries {
				if whose := leads.names[sdk.ToString(r.RegistryArn)]; whose != "" {
					say(sdk.ToString(s.ServiceName), "is found by the name of the plane's %s", whose)
				}
			}
		}
	}
	return out, nil
}

// leads are what leads to the plane's own set: the components, by the ARNs of the names that they are found by, and by those of the target groups that they stand
// behind.
type leads struct{ names, targets map[string]string }

func (p *Platform) leadsToThePlane(ctx context.Context, cfg sdk.Config, place stack.Place) (leads, error) {
	names, targets := map[string]string{}, place.TargetExports(p.Own.Blueprint)
	for _, c := range p.Own.Blueprint.Components {
		names[place.NameExport(c.Name)] = c.Name
	}
	out := leads{map[string]string{}, map[string]string{}}
	pages := cloudformation.NewListExportsPaginator(cloudformation.NewFromConfig(cfg), &cloudformation.ListExportsInput{})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return leads{}, fmt.Errorf("list what stacks tell each other: %w", err)
		}
		for _, e := range page.Exports {
			if component := names[sdk.ToString(e.Name)]; component != "" {
				out.names[sdk.ToString(e.Value)] = component
			}
			if component := targets[sdk.ToString(e.Name)]; component != "" {
				out.targets[sdk.ToString(e.Value)] = component
			}
		}
	}
	return out, nil
}

// astray is what leads to somebody else as to a component of the plane's own set: all that tenants' people say passes there.
func (l leads) astray(ctx context.Context, cfg sdk.Config, place stack.Place) (out []platform.Difference, err error) {
	led := map[string]*drift.Led{}
	of := func(component string) *drift.Led {
		if led[component] == nil {
			led[component] = &drift.Led{Cluster: place.Cluster(), Service: place.Service(string(blueprint.ScopePlane), component)}
		}
		return led[component]
	}
	for _, arn := range slices.Sorted(maps.Keys(l.names)) {
		of(l.names[arn]).Names = append(of(l.names[arn]).Names, arn)
	}
	groups := slices.Sorted(maps.Keys(l.targets))
	for _, arn := range groups {
		of(l.targets[arn]).Targets = append(of(l.targets[arn]).Targets, arn)
	}
	for _, component := range slices.Sorted(maps.Keys(led)) {
		some, err := led[component].Astray(ctx, cfg)
		if err != nil {
			return nil, err
		}
		out = append(out, some...)
	}
	for _, balancer := range place.Balancers() {
		some, err := drift.Elsewhere(ctx, cfg, balancer, groups)
		if err != nil {
			return nil, err
		}
		out = append(out, some...)
	}
	return out, nil
}

// Mend implements platform.Inspector. Of a set that isn't there nobody changed anything: Start makes it.
func (p *Platform) Mend(ctx context.Context, s platform.Set, r platform.Release) (changed bool, err error) {
	t, template, err := p.released(ctx, s, r)
	if err != nil {
		return false, err
	}
	if there, err := t.outputs(ctx, t.stackName()); err != nil || there == nil {
		return false, err
	}
	return drift.Mend(ctx, t.cfg, t.stackName(), template)
}

// released is the template of a set that runs a release.
func (p *Platform) released(ctx context.Context, s platform.Set, r platform.Release) (*tenant, []byte, error) {
	t, err := p.of(ctx, s)
	if err != nil {
		return nil, nil, err
	}
	image := p.State.Images()[imageKey(s.Blueprint, r)]
	if image == "" {
		return nil, nil, fmt.Errorf("which image release %s was pushed as is not known here: look from the machine that it was applied from", r)
	}
	in := t.input(stack.Input{Release: r, Image: image, Running: true})
	if in.Set, err = t.keeping(ctx); err != nil {
		return nil, nil, err
	}
	template, err := t.render(in)
	if err != nil {
		return nil, nil, err
	}
	text, err := template.JSON()
	if err == nil && p.emulated != nil {
		text, err = p.emulated(text)
	}
	return t, text, err
}
