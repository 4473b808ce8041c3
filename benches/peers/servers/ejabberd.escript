#!/usr/bin/env escript
%% The STUN/TURN server of ejabberd and eturnal, without either around it.
%% Usage: ejabberd.escript <ip> <port> <secret>, for REST credentials.
-mode(compile).

main([Address, Port, Secret]) ->
    {ok, IP} = inet:parse_address(Address),
    logger:set_primary_config(level, error),
    {ok, _} = application:ensure_all_started(stun),
    Password = fun(User, _Realm) ->
                       base64:encode(crypto:mac(hmac, sha, Secret, User))
               end,
    ok = stun_listener:add_listener(
           IP, list_to_integer(Port), udp,
           [use_turn,
            {turn_ipv4_address, IP},
            {turn_min_port, 49152}, {turn_max_port, 65535},
            {turn_max_allocations, infinity}, {turn_max_permissions, infinity},
            {turn_blacklist, []}, {turn_whitelist, []},
            {auth_type, user}, {auth_realm, <<"bench.invalid">>}, {auth_fun, Password},
            {shaper, none}]),
    receive stop -> ok end.
