package stack

import (
	"fmt"
	"strings"

	"github.com/awslabs/goformation/v7/cloudformation/ec2"
	"github.com/awslabs/goformation/v7/cloudformation/ecs"
	"github.com/awslabs/goformation/v7/cloudformation/rds"

	"a3os.app/deploy/blueprint"
)

// The plane's network: two zones, each with a quarter for tasks, as each of them has an address, and a little for what faces the internet.
const (
	network        = "10.64.0.0/16"
	privateNetwork = "10.64.%d.0/18"
	publicNetwork  = "10.64.%d.0/24"
	quarter        = 64
	publicFrom     = 128
	anywhere       = "0.0.0.0/0"
	operatorsID    = "Operators"
)

// zones are how subnets and what stands in them are told apart.
var zones = []string{"A", "B"}

// interfaces are the services of AWS that tasks reach inside of the network.
var interfaces = []string{"ecr.api", "ecr.dkr", "logs", "secretsmanager", "kms", "sqs", "sts"}

// ground is what the sets of an account and Region stand on, and what other stacks name of it. It holds nothing of a set.
func (s *set) ground() {
	s.parameter("S3PrefixList", "The managed prefix list of S3 in the Region, pl-…", nil)
	vpc := s.add("Vpc", &ec2.VPC{CidrBlock: new(network), EnableDnsHostnames: new(true), EnableDnsSupport: new(true), Tags: s.tags()})
	gateway := s.add("InternetGateway", &ec2.InternetGateway{Tags: s.tags()})
	attached := s.add("InternetAttached", &ec2.VPCGatewayAttachment{VpcId: ref(vpc), InternetGatewayId: new(ref(gateway))})
	public := s.add("PublicRoutes", &ec2.RouteTable{VpcId: ref(vpc), Tags: s.tags()})
	s.add("PublicRoute", &ec2.Route{RouteTableId: ref(public), DestinationCidrBlock: new(anywhere), GatewayId: new(ref(gateway)), AWSCloudFormationDependsOn: []string{attached}})
	var tables []string
	for i, zone := range zones {
		tables = append(tables, s.zone(i, zone, vpc, public, attached))
	}
	s.endpoints(vpc, tables)
	// Fleet makes databases and roles, takes dumps and asks the registry: its machine is let in by this group, wherever in the network it stands.
	s.add(operatorsID, &ec2.SecurityGroup{GroupDescription: "The machine that fleet works from", VpcId: new(ref(vpc)), Tags: s.tags(), SecurityGroupEgress: []ec2.SecurityGroup_Egress{
		{IpProtocol: tcp, FromPort: new(postgresPort), ToPort: new(postgresPort), CidrIp: new(network), Description: new("Every database server")},
		{IpProtocol: tcp, FromPort: new(https), ToPort: new(https), CidrIp: new(anywhere), Description: new("Services of AWS, and the front door of the plane")}}})
	s.add("DatabaseSubnets", &rds.DBSubnetGroup{DBSubnetGroupDescription: "Database servers of the plane", SubnetIds: s.subnets(), Tags: s.tags()})
	s.parametersOfServers()
	// Container Insights costs for each task and service of every tenant, and keeps their names in logs that no tenant's end takes along. It is said
	// aloud, as an account can have it on for all clusters.
	s.add("Cluster", &ecs.Cluster{ClusterName: new(s.place.cluster()), ClusterSettings: []ecs.Cluster_ClusterSettings{{Name: new("containerInsights"), Value: new("disabled")}}, Tags: s.tags()})
	for _, name := range []string{"Vpc", "SubnetA", "SubnetB", "DatabaseSubnets", parametersID, "Cluster", "Endpoints", operatorsID} {
		s.exports(name, s.own(name))
	}
	s.exports("S3PrefixList", ref("S3PrefixList"))
}

// doors are the groups by which sets and the plane's own parts reach each other.
func (s *set) doors() {
	s.passes("PlaneClients", "Who calls the registry", groupID("registry"), s.api())
	s.exports("PlaneClients", s.own("PlaneClients"))
	s.lets(operatorsID, groupID("registry"), "Operators", s.api())
	s.exports("Gateway", ref(groupID("gateway")))
}

// own is a resource of this template, by what others need of it.
func (s *set) own(id string) string {
	switch s.Resources[id].(type) {
	case *ec2.SecurityGroup:
		return attribute(id, "GroupId")
	default:
		return ref(id)
	}
}

func (s *set) exports(name, value string) {
	s.Outputs[name] = Output{Value: value, Export: &Export{Name: s.place.export(name)}}
}

// zone is a private subnet, with its own way out, and a public one. It answers the private one's routes.
func (s *set) zone(i int, zone, vpc, public, attached string) string {
	at, byID := s.zoneOf(i, zone)
	outer := s.add("PublicSubnet"+zone, &ec2.Subnet{VpcId: ref(vpc), CidrBlock: new(fmt.Sprintf(publicNetwork, publicFrom+i)), AvailabilityZone: at, AvailabilityZoneId: byID, MapPublicIpOnLaunch: new(false), Tags: s.tags()})
	s.add("PublicRoutesOf"+zone, &ec2.SubnetRouteTableAssociation{SubnetId: ref(outer), RouteTableId: ref(public)})
	address := s.add("Address"+zone, &ec2.EIP{Domain: new("vpc"), Tags: s.tags(), AWSCloudFormationDependsOn: []string{attached}})
	nat := s.add("Nat"+zone, &ec2.NatGateway{SubnetId: ref(outer), AllocationId: new(attribute(address, "AllocationId")), Tags: s.tags()})
	inner := s.add("Subnet"+zone, &ec2.Subnet{VpcId: ref(vpc), CidrBlock: new(fmt.Sprintf(privateNetwork, quarter*i)), AvailabilityZone: at, AvailabilityZoneId: byID, MapPublicIpOnLaunch: new(false), Tags: s.tags()})
	table := s.add("PrivateRoutes"+zone, &ec2.RouteTable{VpcId: ref(vpc), Tags: s.tags()})
	s.add("PrivateRoute"+zone, &ec2.Route{RouteTableId: ref(table), DestinationCidrBlock: new(anywhere), NatGatewayId: new(ref(nat))})
	s.add("PrivateRoutesOf"+zone, &ec2.SubnetRouteTableAssociation{SubnetId: ref(inner), RouteTableId: ref(table)})
	return ref(table)
}

// zoneOf is a zone by its name or by its id. Names are each account's own: where two networks are joined, both are to stand in the same zones.
func (s *set) zoneOf(i int, zone string) (name, byID *string) {
	if s.place.Hub == "" {
		return new(function("Fn::Select", []any{i, function("Fn::GetAZs", "")})), nil
	}
	s.parameter(zoneParameter+zone, "Id of a zone in which the plane offers the registry, an output of its stack, as euc1-az1", nil)
	return nil, new(ref(zoneParameter + zone))
}

// endpoints are the ways to AWS that stay inside of the network. Their policy is a wall of its own: nobody of another account asks through
// them, and nothing of another account is asked for, so that data can't be carried off to a bucket of somebody's.
func (s *set) endpoints(vpc string, tables []string) {
	group := s.add("Endpoints", &ec2.SecurityGroup{GroupDescription: "The ways to the services of AWS", VpcId: new(ref(vpc)), Tags: s.tags(), SecurityGroupEgress: nowhere(),
		SecurityGroupIngress: []ec2.SecurityGroup_Ingress{{IpProtocol: tcp, FromPort: new(https), ToPort: new(https), CidrIp: new(network), Description: new("The network of the plane")}}})
	for _, name := range interfaces {
		id := "To" + logical(strings.ReplaceAll(name, ".", "-"))
		s.add(id, &ec2.VPCEndpoint{VpcId: ref(vpc), ServiceName: "com.amazonaws." + s.place.Region + "." + name, VpcEndpointType: new("Interface"), PrivateDnsEnabled: new(true),
			SubnetIds: s.subnets(), SecurityGroupIds: []string{attribute(group, "GroupId")}, PolicyDocument: document(s.ofTheAccount(nil)...)})
	}
	// What lies in buckets of AWS's own whoever asks reads: layers of images and, where fleet's machine stands, the packages of Amazon Linux 2023.
	read := func(sid, bucket string) statement {
		return statement{Sid: sid, Effect: "Allow", Principal: map[string]string{"AWS": "*"}, Action: []string{"s3:GetObject"}, Resource: []string{bucketARN(bucket) + "/*"}}
	}
	// What it lists are the asker's own account's: no bucket is named that could be somebody's, and so it may be that no account of one is either.
	names := statement{Sid: "NamesOfTheAccount", Effect: "Allow", Principal: map[string]string{"AWS": "*"}, Action: []string{"s3:ListAllMyBuckets"}, Resource: []string{"*"},
		Condition: map[string]any{"StringEquals": when{"aws:PrincipalAccount": append([]string{s.place.Account}, s.accounts...)}}}
	statements := append(s.ofTheAccount([]string{"s3:*"}), names, read("LayersOfImages", "prod-"+s.place.Region+"-starport-layer-bucket"))
	if s.place.Hub == "" {
		statements = append(statements, read("PackagesOfTheMachine", "al2023-repos-"+s.place.Region+"-de612dc2"))
	}
	s.add("ToS3", &ec2.VPCEndpoint{VpcId: ref(vpc), ServiceName: "com.amazonaws." + s.place.Region + ".s3", VpcEndpointType: new("Gateway"), RouteTableIds: tables, PolicyDocument: document(statements...)})
}

// ofTheAccount lets the account's own principals reach the account's own resources, and the plane's images; and fleet's those of accounts that tenants
// have to themselves.
func (s *set) ofTheAccount(actions []string) []statement {
	if actions == nil {
		actions = []string{"*"}
	}
	of := func(sid string, who any, whose any) statement {
		return statement{Sid: sid, Effect: "Allow", Principal: map[string]string{"AWS": "*"}, Action: actions, Resource: []string{"*"},
			Condition: map[string]any{"StringEquals": when{"aws:PrincipalAccount": who, "aws:ResourceAccount": whose}}}
	}
	if s.place.Hub != "" {
		return []statement{of("OfTheAccount", s.place.Account, []string{s.place.Account, s.place.Hub})} // where images are
	}
	out := []statement{of("OfTheAccount", s.place.Account, s.place.Account)}
	if len(s.accounts) > 0 {
		// The machine that fleet works from stands here, and becomes a tenant's provisioner and keepers in an account that the tenant has to itself.
		var operators []string
		for _, account := range s.accounts {
			p := s.place
			p.Account = account
			operators = append(operators, p.Provisioner(), p.iam("role/"+string(blueprint.ScopeTenant)+"/*"))
		}
		theirs := of("OfAccountsOfTenants", s.accounts, s.accounts)
		into := of("IntoAccountsOfTenants", s.place.Account, s.accounts)
		out = append(out, theirs.under("ArnLike", when{"aws:PrincipalArn": operators}), into.under("ArnEquals", when{"aws:PrincipalArn": s.place.Provisioner()}))
	}
	return out
}

// passes is a group whose members reach another group's port; being in it is being let in.
func (s *set) passes(id, description, to string, port int) {
	s.add(id, &ec2.SecurityGroup{GroupDescription: description, VpcId: new(s.vpc()), Tags: s.tags(), SecurityGroupEgress: nowhere()})
	s.lets(id, to, description, port)
}

// lets has the members of a group reach another group's port.
func (s *set) lets(id, to, description string, port int) {
	s.add(id+"Out", &ec2.SecurityGroupEgress{GroupId: ref(id), IpProtocol: tcp, FromPort: new(port), ToPort: new(port), DestinationSecurityGroupId: new(ref(to)), Description: new(description)})
	s.add(id+"In", &ec2.SecurityGroupIngress{GroupId: new(ref(to)), IpProtocol: tcp, FromPort: new(port), ToPort: new(port), SourceSecurityGroupId: new(ref(id)), Description: new(description)})
}
