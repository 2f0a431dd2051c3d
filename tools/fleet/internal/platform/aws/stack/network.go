package stack

import (
	"slices"
	"strconv"

	"github.com/awslabs/goformation/v7/cloudformation/ec2"
	"github.com/awslabs/goformation/v7/cloudformation/servicediscovery"

	"a3os.app/deploy/blueprint"
)

const (
	tcp          = "tcp"
	https        = 443
	postgresPort = 5432
	apiPort      = "api"
	peersID      = "Peers"
)

// network is who reaches whom: components of the set reach each other's api, the gateway those with routes, and no other set's have a way in.
// A zone of names is the set's own, since one holds few services.
func (s *set) network() {
	vpc := s.vpc()
	namespace := s.add("Namespace", &servicediscovery.PrivateDnsNamespace{Name: s.namespace(), Vpc: vpc, Tags: s.tags()})
	s.add(peersID, &ec2.SecurityGroup{GroupDescription: "Components of " + s.name() + " among themselves, and on their way to AWS", VpcId: new(vpc), Tags: s.tags(),
		SecurityGroupEgress: s.toAWS()})
	s.add(peersID+"In", &ec2.SecurityGroupIngress{GroupId: new(ref(peersID)), IpProtocol: tcp, FromPort: new(s.api()), ToPort: new(s.lastAPI()),
		SourceSecurityGroupId: new(ref(peersID)), Description: new("The set itself")})
	s.add(peersID+"Out", &ec2.SecurityGroupEgress{GroupId: ref(peersID), IpProtocol: tcp, FromPort: new(s.api()), ToPort: new(s.lastAPI()),
		DestinationSecurityGroupId: new(ref(peersID)), Description: new("The set itself")})
	for _, c := range s.blueprint.Components {
		s.componentNetwork(c, vpc)
		s.add(nameID(c.Name), &servicediscovery.Service{Name: new(c.Name), NamespaceId: new(ref(namespace)), Tags: s.tags(),
			DnsConfig: &servicediscovery.Service_DnsConfig{NamespaceId: new(ref(namespace)), RoutingPolicy: new("MULTIVALUE"),
				DnsRecords: []servicediscovery.Service_DnsRecord{{Type: "A", TTL: 10}}},
			HealthCheckCustomConfig: &servicediscovery.Service_HealthCheckCustomConfig{FailureThreshold: new(1.0)}})
	}
}

// api is the port of it that components have; it is the same for all, as each has an address of its own, but where the set has an account to itself.
func (s *set) api() int { return portOf(blueprint.Component{Ports: []string{apiPort}}, apiPort) }

// toAWS is the way to AWS's services, by the endpoints of the network alone; what images are made of lies in S3.
func (s *set) toAWS() []ec2.SecurityGroup_Egress {
	return []ec2.SecurityGroup_Egress{
		{IpProtocol: tcp, FromPort: new(https), ToPort: new(https), DestinationSecurityGroupId: new(s.of("Endpoints")), Description: new("Services of AWS")},
		{IpProtocol: tcp, FromPort: new(https), ToPort: new(https), DestinationPrefixListId: new(s.of("S3PrefixList")), Description: new("S3")},
	}
}

// componentNetwork is a group of the component's own.
func (s *set) componentNetwork(c blueprint.Component, vpc string) {
	group := &ec2.SecurityGroup{GroupDescription: "Component " + c.Name + " of " + s.name(), VpcId: new(vpc), Tags: s.tags()}
	if len(c.Routes) > 0 {
		group.SecurityGroupIngress = append(group.SecurityGroupIngress, ec2.SecurityGroup_Ingress{IpProtocol: tcp, FromPort: new(s.portOf(c, apiPort)), ToPort: new(s.portOf(c, apiPort)),
			SourceSecurityGroupId: new(s.of("Gateway")), Description: new("The gateway")})
	}
	if c.Needs.Outside {
		// What a tenant connects is where the tenant has it, on any port. Nothing of AWS's or of another set's lets it in for that.
		group.SecurityGroupEgress = append(group.SecurityGroupEgress, ec2.SecurityGroup_Egress{IpProtocol: tcp, FromPort: new(1), ToPort: new(65535), CidrIp: new("0.0.0.0/0"),
			Description: new("Systems that the tenant connects")})
	}
	if c.Needs.FrontDoor {
		group.SecurityGroupIngress = append(group.SecurityGroupIngress, ec2.SecurityGroup_Ingress{IpProtocol: tcp, FromPort: new(s.api()), ToPort: new(s.api()),
			SourceSecurityGroupId: new(ref(balancerID)), Description: new("The load balancer")})
		group.SecurityGroupEgress = append(group.SecurityGroupEgress, ec2.SecurityGroup_Egress{IpProtocol: tcp, FromPort: new(s.api()), ToPort: new(s.api() + portsApart*(mostApart-1)), CidrIp: new(network),
			Description: new("Every set")})
	}
	if len(group.SecurityGroupEgress) == 0 {
		group.SecurityGroupEgress = nowhere()
	}
	s.add(groupID(c.Name), group)
}

// nowhere is said aloud: a group without any way out is given one to everywhere.
func nowhere() []ec2.SecurityGroup_Egress {
	return []ec2.SecurityGroup_Egress{{IpProtocol: tcp, FromPort: new(1), ToPort: new(1), CidrIp: new("127.0.0.1/32"), Description: new("Nowhere")}}
}

func groupID(component string) string { return logical(component, "network") }

func nameID(component string) string { return logical(component, "name") }

// groups are a task's: its own, its set's, and those by which the plane's parts that it needs let it in.
func (s *set) groups(c blueprint.Component) []string {
	out := []string{s.held(groupID(c.Name)), s.held(peersID)}
	if len(c.Needs.Database) > 0 {
		out = append(out, s.databaseClients())
	}
	if slices.Contains(c.Needs.Plane, blueprint.Registry) {
		out = append(out, s.of("PlaneClients"))
	}
	return out
}

// of is something of the plane's stack: of this one where it is that.
func (s *set) of(name string) string {
	if s.tenant == "" && !s.standing {
		if name == "S3PrefixList" {
			return ref(name)
		}
		return s.own(name)
	}
	return s.place.imported(name)
}

func (s *set) vpc() string { return s.of("Vpc") }

// address is where a component listens, as its peers find it.
func (s *set) address(c blueprint.Component, port string) string {
	return c.Name + "." + s.namespace() + ":" + strconv.Itoa(s.portOf(c, port))
}
