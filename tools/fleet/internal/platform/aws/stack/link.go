package stack

import (
	"errors"
	"fmt"

	"github.com/awslabs/goformation/v7/cloudformation/ec2"
	"github.com/awslabs/goformation/v7/cloudformation/ecs"
	elb "github.com/awslabs/goformation/v7/cloudformation/elasticloadbalancingv2"
	"github.com/awslabs/goformation/v7/cloudformation/route53"

	"a3os.app/deploy/blueprint"
)

// The network of a tenant's own account and the plane's have the same addresses, and neither is to see more of the other than what that serves:
// they are joined by PrivateLink, one way from the set to the registry and one from the gateway to the set. Each way is a load balancer on one
// side, offered to the other's account by name, and an endpoint on the other, which the name leads to that the server has on its own side. Certificates
// say who is at the other end, as everywhere. Administrators deploy both: nothing that fleet is at AWS opens a way between accounts.

// Ports of components of a set that has an account to itself: one load balancer leads to all, so that each is at a port of its own. The gateway
// may reach so many.
const (
	portsApart = 10
	mostApart  = 10
)

// Parameters and outputs that say the one side's part to the other.
const (
	RegistryServiceOutput = "RegistryService"
	SetServiceOutput      = "SetService"
	LinkOutput            = "Link"
	registryTargetsID     = "RegistryTargets"
	zoneParameter         = "Zone"
)

// apartPort is where a component of a set that has an account to itself listens on a port.
func apartPort(b *blueprint.Blueprint, c blueprint.Component, name string) int {
	port := portOf(c, name)
	for i, other := range b.Components {
		if other.Name == c.Name {
			port += i * portsApart
		}
	}
	return port
}

// portOf is where a component of the set listens on a port.
func (s *set) portOf(c blueprint.Component, name string) int {
	if s.place.Hub != "" {
		return apartPort(s.blueprint, c, name)
	}
	return portOf(c, name)
}

// lastAPI is the last of the ports that components of the set have for others, api the first.
func (s *set) lastAPI() int {
	if s.place.Hub != "" {
		return s.api() + portsApart*(len(s.blueprint.Components)-1)
	}
	return s.api()
}

// offersRegistry is the way to the registry, of the plane's stack: there where accounts of tenants are named, and for as long as the plane's own set is
// behind it, which CloudFormation does not let go of what it names.
func (s *set) offersRegistry(accounts []string, unoffered bool) {
	if len(accounts) == 0 && !unoffered {
		return
	}
	s.passes("RegistryFront", "Sets in accounts of their own", groupID(blueprint.Registry), s.api())
	balancer := s.innerBalancer("RegistryBalancer", s.place.registryBalancer(), "RegistryFront")
	s.forwards(balancer, registryTargetsID, s.api())
	s.exports(registryTargetsID, ref(registryTargetsID))
	if len(accounts) == 0 {
		return
	}
	s.offers(RegistryServiceOutput, "Where a tenant's own account reaches the registry", balancer, accounts)
	for _, zone := range zones {
		s.Outputs[zoneParameter+zone] = Output{Description: "A zone, by the id that all accounts know it by, in which the registry is offered", Value: attribute("Subnet"+zone, "AvailabilityZoneId")}
	}
}

// linked is the tenant's side, of the stack of its account: an endpoint for the registry, and a load balancer before what of the set has routes.
func (s *set) linked(b *blueprint.Blueprint) {
	s.parameter(RegistryServiceOutput, "Endpoint service of the registry: an output of the plane's stack, once that names this account", nil)
	s.add("RegistryEnd", &ec2.SecurityGroup{GroupDescription: "The way to the registry", VpcId: new(s.vpc()), Tags: s.tags(), SecurityGroupEgress: nowhere()})
	s.passes("PlaneClients", "Who calls the registry", "RegistryEnd", s.api())
	s.exports("PlaneClients", s.own("PlaneClients"))
	s.reaches("ToRegistry", RegistryServiceOutput, "RegistryEnd", (&set{place: s.place.home()}).namespace(), blueprint.Registry)

	s.add("Gateway", &ec2.SecurityGroup{GroupDescription: "The load balancer that the gateway of the plane comes through", VpcId: new(s.vpc()), Tags: s.tags(),
		SecurityGroupEgress: []ec2.SecurityGroup_Egress{{IpProtocol: tcp, FromPort: new(s.api()), ToPort: new(s.api() + portsApart*(len(b.Components)-1)), CidrIp: new(network), Description: new("The set")}}})
	s.exports("Gateway", s.own("Gateway"))
	balancer := s.innerBalancer("SetBalancer", s.place.cluster()+"-set", "Gateway")
	for _, c := range b.Components {
		if len(c.Routes) > 0 {
			s.forwards(balancer, targetsOf(c), apartPort(b, c, apiPort))
			s.exports(targetsOf(c), ref(targetsOf(c)))
		}
	}
	s.offers(SetServiceOutput, "Where the plane reaches the set", balancer, []string{s.place.Hub})
}

// Link renders the plane's side of a tenant that has an account to itself, in the plane's account: the endpoint that the gateway reaches the set by.
func Link(in Input) (*Template, error) {
	if in.Place.Hub == "" {
		return nil, errors.New("what joins the plane's network to a tenant's is rendered for the tenant's own account: name both accounts")
	}
	if err := in.check(); err != nil {
		return nil, err
	}
	b := in.Set.Blueprint
	if n := len(b.Components); n > mostApart {
		return nil, fmt.Errorf("%s has %d components, and the gateway reaches %d of a set that has an account to itself", b.Name, n, mostApart)
	}
	in.Place = in.Place.home()
	s := newSet(in)
	s.tenant, s.slug = in.Set.Tenant.String(), in.Set.Slug
	s.Description = fmt.Sprintf("The way from plane %s to the set of tenant %s, which has an account to itself", s.place.Plane, s.tenant)
	end := &ec2.SecurityGroup{GroupDescription: "The way to the set of " + s.name(), VpcId: new(s.vpc()), Tags: s.tags(), SecurityGroupEgress: nowhere()}
	var names []string
	for _, c := range b.Components {
		if port := apartPort(b, c, apiPort); len(c.Routes) > 0 {
			names = append(names, c.Name)
			end.SecurityGroupIngress = append(end.SecurityGroupIngress, ec2.SecurityGroup_Ingress{IpProtocol: tcp, FromPort: new(port), ToPort: new(port), SourceSecurityGroupId: new(s.of("Gateway")),
				Description: new("The gateway, to " + c.Name)})
		}
	}
	s.add("SetEnd", end)
	s.parameter(SetServiceOutput, "Endpoint service of the set: an output of the stack of the tenant's account", nil)
	s.reaches("ToSet", SetServiceOutput, "SetEnd", s.namespace(), names...)
	s.Outputs[LinkOutput] = Output{Description: "The endpoint that leads to the set", Value: ref("ToSet")}
	return s.Template, nil
}

// innerBalancer is one that no address of the network reaches, for its group lets none in: what comes by the endpoint service is let in by that
// alone, from addresses of another network, which no rule could name.
func (s *set) innerBalancer(id, name, group string) string {
	return s.add(id, &elb.LoadBalancer{Name: new(name), Type: new("network"), Scheme: new("internal"), SecurityGroups: []string{ref(group)}, Subnets: s.subnets(), Tags: s.tags(),
		EnforceSecurityGroupInboundRulesOnPrivateLinkTraffic: new("off"),
		LoadBalancerAttributes:                               []elb.LoadBalancer_LoadBalancerAttribute{{Key: new(crossZone), Value: new("true")}}})
}

// forwards has a load balancer pass a port on to whom a service registers, TLS and all.
func (s *set) forwards(balancer, targets string, port int) {
	s.add(targets, &elb.TargetGroup{TargetType: new("ip"), Protocol: new("TCP"), Port: new(port), VpcId: new(s.vpc()), Tags: s.tags(), HealthCheckProtocol: new("TCP"),
		TargetGroupAttributes: []elb.TargetGroup_TargetGroupAttribute{{Key: new("deregistration_delay.timeout_seconds"), Value: new("30")}, {Key: new(clientAddresses), Value: new("false")}}})
	s.add(targets+"Listener", &elb.Listener{LoadBalancerArn: ref(balancer), Port: new(port), Protocol: new("TCP"), DefaultActions: []elb.Listener_Action{{Type: "forward", TargetGroupArn: new(ref(targets))}}})
}

// offers is an endpoint service that accounts may make an endpoint for, each by its number: it needs nobody's word besides.
func (s *set) offers(id, description, balancer string, accounts []string) {
	s.add(id, &ec2.VPCEndpointService{NetworkLoadBalancerArns: []string{ref(balancer)}, AcceptanceRequired: new(false)})
	var principals []string
	for _, account := range accounts {
		principals = append(principals, Place{Account: account}.iam("root"))
	}
	s.add(id+"Allowed", &ec2.VPCEndpointServicePermissions{ServiceId: ref(id), AllowedPrincipals: principals})
	s.Outputs[id] = Output{Description: description, Value: function("Fn::Join", []any{".", []string{"com.amazonaws.vpce", s.place.Region, ref(id)}})}
}

// reaches is an endpoint for a service that a parameter names, and the names that lead to it in this network alone.
func (s *set) reaches(id, parameter, group, zone string, names ...string) {
	s.add(id, &ec2.VPCEndpoint{VpcId: s.vpc(), ServiceName: ref(parameter), VpcEndpointType: new("Interface"), PrivateDnsEnabled: new(false), SubnetIds: s.subnets(), SecurityGroupIds: []string{attribute(group, "GroupId")}})
	at := s.add(id+"Names", &route53.HostedZone{Name: new(zone), VPCs: []route53.HostedZone_VPC{{VPCId: s.vpc(), VPCRegion: s.place.Region}}})
	// The first entry is that of all zones, written as the zone that the name is in and the name.
	first := function("Fn::Select", []any{0, attribute(id, "DnsEntries")})
	part := func(i int) string {
		return function("Fn::Select", []any{i, function("Fn::Split", []any{":", first})})
	}
	for _, name := range names {
		s.add(logical(id, name, "name"), &route53.RecordSet{HostedZoneId: new(ref(at)), Name: name + "." + zone, Type: "A",
			AliasTarget: &route53.RecordSet_AliasTarget{HostedZoneId: part(0), DNSName: part(1), EvaluateTargetHealth: new(false)}})
	}
}

// targetsOf are what the load balancer before a set sends to for a component.
func targetsOf(c blueprint.Component) string { return logical(c.Name, "targets") }

// behindALink has a service register its tasks with what another account's network reaches it through.
func (s *set) behindALink(c blueprint.Component, service *ecs.Service) {
	var targets string
	switch {
	case s.place.Hub != "" && len(c.Routes) > 0:
		targets = targetsOf(c)
	case s.tenant == "" && s.joined && c.Name == blueprint.Registry:
		targets = registryTargetsID
	default:
		return
	}
	service.LoadBalancers = append(service.LoadBalancers, ecs.Service_LoadBalancer{ContainerName: new(c.Name), ContainerPort: new(s.portOf(c, apiPort)), TargetGroupArn: new(s.place.imported(targets))})
}

// LinkStack is what the stack of the plane's account is called that leads to the set of a tenant with an account of its own.
func (p Place) LinkStack(tenant string) string { return p.StackOf(tenant) + "-link" }
