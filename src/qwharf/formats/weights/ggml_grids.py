"""The tables by which the IQ types of GGUF spell groups of eight or four elements.

They are part of the format (llama.cpp ``ggml/src/ggml-common.h``): points chosen by hand among all
combinations of a few levels. Each row is kept as one number, its digits counted in the base of the
number of levels, first element highest; all rows as 16-bit words in base 85.
"""

from __future__ import annotations

import base64
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LEVELS = {
    "IQ2_XXS": (8, (8, 25, 43)),
    "IQ2_XS": (8, (8, 25, 43)),
    "IQ2_S": (8, (8, 25, 43)),
    "IQ3_XXS": (4, (4, 12, 20, 28, 36, 44, 52, 62)),
    "IQ3_S": (4, (1, 3, 5, 7, 9, 11, 13, 15)),
    "IQ1_S": (8, (-1, 0, 1)),
}
"""Elements of a row, and their levels."""


@cache
def grid(name: str) -> NDArray[np.float32]:
    """The table of a type, [rows, 8 or 4]; IQ1_M shares that of IQ1_S."""
    size, levels = _LEVELS[name]
    numbers = np.frombuffer(base64.b85decode(_ROWS[name]), "<u2").astype(np.int64)
    digits = numbers[:, None] // len(levels) ** np.arange(size - 1, -1, -1) % len(levels)
    values: NDArray[np.float32] = np.array(levels, np.float32)[digits]
    return values


_ROWS = {
    "IQ2_XXS": (
        "000&dWDBwd$QFJH%md~D{1TW4t{B`1Dg#6T_6EWV5Cx(DxDjd>o)e}B^a2h6atv$$mIGo3HULZ!G866*lnCMi`~Z"
        "3i$OKvda1jg!Kms-igae)dY6T<!IuX_d3Ib#lm=MMQL<)QkG69ePx&xpE5&(7!#0B01st4`}JOfq%Y!YS$1_OQoU"
        "J(=ojtJZW_5gGWQ~){xegl{R{0trd&;<knVgV``zySCJ?h6b6z6J6DRt=gCt^mvibQ3}VBo&|t?g9t_W&lD7FaVS"
        "bxB?mq1^^rp&K58O$O@<cz7a$aBnCVHQW2U6=mG)(U;siDDgXuvItAJR$_4%bh6H#6j0oBS^Z=#?atgo%QUC-7G!"
        "-}kE(v@CmH`|90s`I&z5pT&!U!q>ItFSLAP5Qoyan(9tN`2(E)wJfKmeWy>;eV>WB|wuE&wD4@CxP;{tMm#1OT=L"
        "f(bMa>H($zSO)k4h7o`TS_+~8xDxOd&In)x766n9Mh_+hf&l&n-~##pSOD+`A^^$^;s$gA5CC)w9sx8GrUQTx0st"
        "5h$`;-Tx)JsQ!Uk>twh5L9<O2QxVhmgWLINfLW)zeJeh!iVcmgUB2m{Co-U9dl!~|9V7z+Xw!T|6K4gd-hI0N_zL"
        "<txI9uZ6d4h&!pJ^;1`UI7jR"
    ),
    "IQ2_XS": (
        "000&dWDBwd$QFJH%md;SFc0Pd{1QqHm<QYlDg!_ijt)ctS`w%X_6EWV5Cx(DxDf^nR0bdlZUoW~hytbv^a2VLSPl"
        "*WBocBAzy{VAj0)NWYyg50&<h?0>IpamQUU}BNC}n$umLszOc9z3=moS10t6fa5(!`fdI8=H*Z`mxlnCMi_!CAB`"
        "~VUXU<|GXdJ4z{S^#hnz6%Tn*a;>CJQY9!HVK3So&h8PIuVEq)&-&o@B<1000~Y5XaVL5#sJC)7y~i^6c&&GrV+X"
        "W5&$R>b_>J>+7^%r-UIjnTn+9BJOfq%2nVzPngU`OxCjOVAOU^=S_upfNB}MZ;0MeV&;pJK+ye3wKo0f*3=&!ls0"
        "MTj!UR+RY7w{#1_sgzAOt!B0vRv~egl{R9so2Ef(y_EoC)d!1Ooa9NCRR4zyOQ{q7}pl5(6j{ECGrDZ~_bfA`x&4"
        "z6FX2*aPwb=m<6gnhsC_90jfbvIqbJ8Uc6!LI4f~&<>yo?g9t_9uj5%G6bd+FaVSbRu&ox5D^9d91&^@xCPD@gbC"
        "6E>;d8kFat^fr~r-vtO)u76ajJoBnG?<JODTo-T-z8nh59u0s%4*U;rur1_^``{14Cw02sU$7y!xz;1>P?zzl2#w"
        "i6r($N>NbGy(<^q6WAZj0oBS@Dn}`^Z*JHSPZ5Hatgo%QUGWXwhIIX8W+$B9t1c7oDD7sd;^vN8~`#AfD6tAnhEF"
        "w0s{C5Mgw30z5pT&x)Z_(5CbX!KoVLIhyV%zAQ5g0yak8})&n{Z@B!usGy_fntN?ffun7JF7y;x2b^wAHKmZ6AY6"
        "FA;o(Sv$1_5LM$O|w8U=uC?tO-~Hasi?cA_D{f8WCs<wgrL-&;#lLoCn|tE(1sbrU0r4_yQ6Eb_{R;h7mddWCMyB"
        "m<Z+q00DjqUI0V_Itd^PC;-|8$^d)@v<fT;RtpvY;sf#sS^?+}>=%Lnm=RJ8k_g}e`T$q}Bm`6wm=w$qA^`jZRu|"
        "|J5CHNN9szs+;0ufeqzD)pehoepYy_MW0st5hW(%|hfC<h6=mD@8-UuuMMggP%x)D4GQW>ZS_5utP5CLug><OL^H"
        "~=03+5qqozyfjzmI&km{s0sbVhmgWLIUazCIC<a5)S4DKp7MO#syvtAQ-j)%n?oq9u!6s>;Rqy&J~0RkO<xa_yAS"
        "_I2C{cAOIW_Fa>TE8V?Qtatk;EQUL@9Oc1^S)Dj>G<_V4#zz(DggaQZv9uc|)&=&3iwiu8C@(H95nif6)R1xq6>="
        "@tx#sXph3Ju~7jtAlv00I^hvIn99R0s|Oumi>v=m-87a0;Lq"
    ),
    "IQ2_S": (
        "000&dWDBwd$QFJH%md;SFc0Pd{1QqHm<QYlDg!_ijt)ctS`w%X_6EWV5CtX{bP%EdxDf^nR0bdlZUl$|><v&ErU>"
        ")`3KUol4gn+*aty!*j0)NWYyg50&<h?0>IpamP8FOFQUbOO1PDk8mIJT>#u5|_E(?4GHULZ!nhWR!v<U(P90KGR5"
        "(!`fb`-=8dI8=H*Z@2XpckYB)Dx5l;sW>+Mh^S{5)xnxt_FGv$OPUMED%}%a1p)>3<e?>*a;>CJQa!$Kmt}1qzyI"
        "+gaeus=nkF%0u4|H91Cg%Bmg=Qhzr&Q>=vR4@B;=FR1XRQZVkK#00~Y5WE8RvXaRl_%nTX_<_a_g#sJ(ADhzlAL<"
        "*7wtOCji7y~X8d=4@JmJE;p^b0};4hmcZb^>e(x&zb!5&$R>b_>J>kO|%c^b|r5_yJrEz!>fbJOfe`pbl06Y!bQ*"
        "2nW;(A_cSn7z}^}Vi~vy1_K}gHWGvk(gvOiegNVNFb4byN(5vAS_#4dNC3tO6a+*Q;0N{?i~$-DjtJZW@)JM~_5c"
        "hLS`4TLbPB=**cDU&Y7w{#1_sgzAOtoQgbz9bP!paF><2Ijegl*gm;w9@N(UATWCb1oG!cRe&;{leoC)d!02NLT1"
        "OgfpXbrXp`Upq^UKFejVgYy(#tak(;0i7UzyQ_}Bn)x}J_?Kk#0U}tb`C57kPNB{_ymdo?h6PCRs?1Vv;)oo3;-e"
        "#a0|W#iV4^Q?i4%^@&Q&2qzC8-HUmr)nhsC_W)idv0te0t90jfb#1Rq<U<ND-dIXdLvIqbJ78GO-8UZj8ehkb8m<"
        "r|ucmR$O+zToO_6bA;UIJ7Jq654ELI9=<^aa2P4g@Fy9tms%h5_UNk{O@~?g9i9QVs|KYz(>vh6-i?d=bhE7zX4C"
        "G6YNlLJ5!qFaSmolndeot_l1D76J?jS_5<eq!7*%Bm+JHoB)0m1^^rpY74jpgbC6E=oB^&>;X^>v>4(DFat^fU=p"
        "qj76qsPa2Iq0RvD}a`T`UIDiU}Mk_vJFh!NHc@CiNySOQK7oCCH2JOBh2I1|(d>KJANfB}#OrWbYynh59u{u4|N0"
        "s&?Wv<83*&IDipb`iu25(eH0ECfaZJPC>eqyZ`bjtkrcs0sE15CR4XR0D1SP!`Mp&<Gv_I02Rb#t#?(d<&Kd<OB2"
        "wLIYd@f){8Rz6cBhCIKuB78gnrUIn5CxEG8F+5+$sJ`VH%3KCchrUtwhatgo%))i6!Xc4vx1O^%x&<P#{G!=pmI0"
        "8-+oDD7sd;^vN`V2@16boVn8~`#AfD6tAnhEFw{uE3P0s<HlW)1iVMgv?Fst#ZQb`r!45(nN2ECs#*)Da>Ka0WaI"
        "iUgzr!UzxpDgi(ejttxe_5_Fk><c;u1`1RJZUSTpvI7bLAQ5g0yam!0hzZsM>=Zf=@Bs!BR1KmB<_I(cN)(t5P61"
        ">RvJ3zR%nBL>tN_9h5DZ=hDhhZ6k^-;@{sI&fVh$JqE)skU$_ADS<OFsAj1k%kC<gQiLIhj_BpFf(paZ%AKmb+|q"
        "zm!|z6lHjCITD@Y6FA;;s7iTo(Sv$P!0wG91>~_xCVp@(gb7xdJ)JA76#%8Fa$~hjsvIxE&xOkk_+GktO@!96aoq"
        "fSOana&;YU()CeL2JOP>j1OOTlXbZLlf(g(A<`gs!>Hz=~P7Ry~;0P`QL==(^NC93FtPJ`F#tIY#rU1MV3Jh2VBn"
        "ol_stEW34isDt5&<X@b_~P@kP6-eZ~%r8)C(d8?g=~uRsu{3ngg@}Isl#v>;<?91_U4i771hnegUo!+yIye<^uc^"
        "N)7-477}C(vIc$%%miKlbP>V}5C+@{Dg;CVIthpaq5&uXJ`s!y+6ATw^aBn81PM|DYyrvu&IlX>HUStGlmHe0ED?"
        "GO$OV)M;sg8v@(4f!S^**$xB$Ee3Iikof&fead=F9#h6s`f-~#p&`T!6TUJR@TcnZb@SOB~W3I^5*Bm_PJf&-iZA"
        "^<oMh6~gMpb72+2m<~HOao>C!~paU76UK=jsS2KPzw+MbPK`-jtSfY_5th&Is;SzvH-RS1Opxcd;mlj6bRN5MgX("
        "~qzLi?3<0zaU<Wh+;uy9OVhaKQ7!hU*v;}|(&I2+J=mAU(-UuuMMgd$BstouB#0sPU2n-?$a0I9b_5xZC5CJ9<bP"
        "U1<jtblaZUBT4(hDF4><KyqN(q<)vH{`{H~^dr02j6i1OyZbVgq~umI&km`V&YF{s0sbVhpebd<t9uauL7_4hGr@"
        "C<H<RI0=RWpaCWTJQ0cu*af5s@&gP40trw9Y5~XqkQdAd8Ur)|WDt@76aaV&k_q4g@CZHwSOKyVx(EmZfB?!3MiW"
        "2>Ru}>j=o63#-U31n_y7(PTnwrP!~|9VY!SK(2nN&%A_P1FG6{eKngJjHgbSVt>;wD=N&{p8EEvWJ6ay{+i~zD04"
        "ge$(atpu(j0xHU^a1J!I0I4vumF-3v<LzN907U&a0fgKL;!>oR0X04@B#_}>=kGL+z>JVzz&QO;sFQ%Yzxp9)B^+"
        ")wix6HG6PHjrW05hbO62$R1pRjIuq6h>=^bDk_M<3cnF*b>H-7-VgT?Cas?~^Tn`os;uf+8xD!$Y#uNeu7#B7IOc"
        "Uq_qz0fF"
    ),
    "IQ3_XXS": (
        "0000400=+=Kn6e#fB=95zybgTzz4t!2m%NONB~F#hysWT$N<O$2m?q7$N>-l5CjkiPy&zukOa^I&<4;BPy<j8&<h"
        "v>7!FtfSOk~~*a2V$;0_=OU=QF2;0q`MC=TcZXa(>JunBkocnEk5I0v``0RjOAK>$GnfdYXB!2rPo!3Y5lK>-N>2"
        "?R+3i2#WN5dskgQ2<c{kpj^G(FGX*83dUC*#a32nGGQVAqrsusQ{@6DGliZF$%c^IROFy0t7+=LI#2Wf&_vL!U6&"
        "X3IYlS3JOX9N(71m$^eQ7iVw;G5&#keQUX#Ak^qtf(hd><QVSXaS^!!I+5y@L;tFC1Dh8?!Dg){XIs!TddJH-X0|"
        "G+;Lj;2Yg9bwZgA2n23jhlQivY_43keGi69N+kQvj0+Qw7rnTLRk#;{YQM;{_`KD-5dyYYTG-^9-{G`v$uK1PDY9"
        "#0ta?L<d9<%n6hL)D9E@lmV0t91a`{BnV^!qzSAFEC=iXJPLdOd<6UeMFa%{#Q_Zf4GfJ8O$${B)dbZA9RytmWdN"
        "lHr4Ho<Ed=cXbpgEyJq3mc1_=fYh6#=WjssQ>mI>Yf-V7!QE(&f1_69x%z5)jZ2MPxcM*znJM+J`z4*^#M7YkPf9"
        "{^tp-v*xnrvfJfF90tDuL$=5"
    ),
    "IQ3_S": (
        "0000200aOE01iL^KmtGnKnOq#fB=93fC|6{0096601E&QKm$MrfB}F7zyrVuzz+xj2m%NM2na|3NCHR-hyaKNhz`"
        "gC$O;Gvhy#cV$ORAp5CRYi5DriPPzF#8kOGhj&;ZZ~5Csqm5D!oTPzTTf&<7X>SOQoIm;jgr*aFxF*bEp6SOHiCm"
        "=D+k*b5*4U<P0gpaP%>-~=E6AO~Or-~lKEC<v$ks064C=msbQC<`bLs14``Fbr@4a0c)Ka0T!KH~=^VI0(1^xCFQ"
        "i_y%|ZcnJXj0RjO80SG|=K>|SrK?*?*fdGL7!2-bu!3;qOK@EWe!37Bb2?7ZQ2@FX9NeGDo$pFa)2?I$1Nd?IP$q"
        "f+zQ3O#6Q4Wy+kqFTQ5djegQ45g)(FGX-83-8;SpZoEnF5&(*#OxH83UOG*#RL2AqrsxVF=*@;RYcEAq`;xVF@V$"
        "X#i;ksRHQ$=>%y5u>i3Mu?{f_F%3BaIR<$Ec?7uv`3gA$xdr(F0ssO60tNyK0uDj|LIgqxLJWcef(C*P!T`bq0s{"
        "gE0t-R`LIr{k!U4hu!V3xj3Is|3N(M>}iUf)Z$^yy=3I$375&{wk5)P6Ak_OTM(hd>>QU_8G(gV^78UPvu8VXthn"
        "gp5%+5*}J8U<PbnhhcXA`YSeq6Xpw;tC=I;sxRhDhO%<ss!o|DgkN->H#tUG6XUXvI24ovI9B_dIGu(`T#lydI19"
        "jLjpqvLkdF<g9O6@!v@0&0|f&K0}n$3g9pO{3jzxU3kpjJivo)V3jvD(%LU5~697{LlK|5M(+E=m8v<JZTL_y1n+"
        "BT>+W;E_8wVQ?TMOF<BL-svV+^AN;{sy^qXDA{D*|f(YXqwb>jWzaYYpoMa||;BI|4ffy8ycc`w9dA1PDX~gaCvH"
        "gbu_61Or3?!~qNh3=T{JOa_bu%mB;^3<pdDObZkO6b4iPR0@;=)CLp*R1cH|)Bzj_TmoDMoB*5z+ydMRBmg7?qzL"
        "2=Bmv|DED9_RtOBeBbO!VYv;lkod<y&kJO_LO1q4L^MF@oi1px&K1rJ39g$>0C4FU}Y4GK*JjRMUC%>@+zRRWa;)"
        "d1BDRR<je9S&UpoemudT?3s9-3KKCB?zSe<pd=SZ3L|hZ3ArwH3dBcJqW!7Mgm3#MheCP#s-D~4gih-jt-6qRs_}"
        "v76n!dmIc-U9sphlo&p{LrV1tprUfnlE(Y!ht^qa*HUWMDeg+2s2M7lahX98J#|#GnM+t`o4+KvFj|dM34+|Fp7Y"
        "J7XR}7Z|*8o=o9|Ye7-wIy`Cjuu5X9lMLX92GSF9kOQ_X0lv"
    ),
    "IQ1_S": (
        "000&dWDBwd$QFJHR}AI>{1TW4t{Alo&j}p_GZmW+q5!xNR0e7n`3#5xo)bC<P#N?Be+!uj=L7u|OApo;WexWTTNJ"
        "4dbrQo2Cm7udD+NIo1PCDvI|_*epA`oVHULZ!=mq{3jSL(DG84`R<QVG<1q!zhMg^)6*Z}SkiUyz;Rthf-2oSyk)"
        "Dv(Bh8c$m)dTAkQw`+^mkzNE6&M)>qzx$w+Yj{(uL%7Dhzk=Gdko12-xo&^bpY85Jr`&J^9ex&%nVl*r4L&IaTC7"
        "{4G1F{Q3*r}9Sv&-ffzRng#{1}n-=L13j}Wu8wqIxg8`Wm=L|Imb^-wlWfrp#MGRjGtppJe5&$R>#0A<GX$<%Q4i"
        "l;ez!=91;R!_*tqrsQ$`NJ;d>0E1ngXyBObB8bkqfH{`2$@K>;!iW2?=ol{0Y?z?+QHyp%6_9n*^~H{|^}sNB~|D"
        "`UMadpA0SnL=)f#_89#O7YfM_3Jc>6>Hq)|P7Is|vKK)O&;sTYf(V!y_5gti&jT|L!URnX-v})OM**u0`3A)b69t"
        "|PcMu~AaRi4I77OnUsR;K14HR1r5dkL>bqvD>j|$xcK@igmHy2_7?Fo1iI|RlIQ5ByLRRXyUnFGlZ7Y#8Be+9P*1"
        "q2%vgAIxRc@)PElM>+!F9$^!Nd;dPKMYw4rv$wfB@UMe`x8kH*aKq>u?9R3eG1_f=m^0JOcW0WB^TQXDFn0(KNXD"
        "+SrexX^#_Lo>kgp-dISXxQwQD;X&4_1Z3XxZ(GWcmiwo}-r3v!`ehdi}R}T#WBNK5AzX#PA0|`+B+zV$E_6dO!L<"
        "G+aS{0}dGZ^U#HwD5CO%|IF$pGIGq5~}qdj^pgya7iFl>{ISs}=bVgcz>^#S;?_%?KL<rVB9?nG7Tq=LY>3vkDg$"
        "lK`m^Yy<ZTMFv|J5en)Ibrm=V!w&=tQU%=&D+sm_K^fB&tQYMPI}M`+2N9DA_Y_|Z@d!TyRTQHRSpmHa3kM+>Oaj"
        "*mB?UVci4YqMH41|S0S+SpITD8q>ldL4dJUHmS_9<^GY0<&O$68sV->LvJQ!yJ%MC9X4-ZfZ+Y%`acLzfYrxx`Ph"
        "z>0k3I!k*bpwkO*$$5Zr4sWDK?e;BaTdQ2Q4DJe&lRW`1^^rpxCPD@T@3620uxXTo(HrTy9?C`hY!dKp$(`2z7bj"
        "ma2Nj!jsm0;@(n-;RvCp0p9$>)Q4ebkh!INzuMWu!7Y8jE;|ehaybVVdCk(a$r4{oJ4GzZ$?ga!Fx(SmEA_6!Q)C"
        "cMq@e2zIZxy`{*9~b2kOrm~TnaS}!~)tAb_k3aa|_!8@f1G~Sq(V@#0yUpoepUdw+sab8yGbf6$~#5eFWhTA`ANs"
        "XAXf3n+i=3djQ`HEe81sM+DLgs}FY*#SIe(2@k&km;@sYaR-MOJqwEkp%(8DsS7v(P7-wwj}0LS(+=$nd;$jxxe&"
        "ku))d+Sq8JzeE)mKF;1+KT{s9ydum{E%%?sxVH3YK_x&Y7-YzBfCpaQlNQV3`na1OBv{{v$WeGPLI!48cQ+YI#zL"
        "j_qDrw};|$N{$%1rU@49}Z3cWDx)c78f)EN)zS>{1^ia9SVUJ&kyMh@Bju9q6WAZM-A2j>=TFxo*88ee+lChOAU_"
        ">TN0@Z_XZ6Z!wL}vCl+r6(+?C2corN0rwH`|3lv!nB@%NC{uIFm*B6Zn@fAN1(F-32H5cm%IRwNEPZgaHC>Xa51q"
        "d4%NePz&trW2V#}X9{qyjGsx)YlVwFv_R85MyI6A6(L-wZ<-M+K`877wKaBMy}aVGKGCEfBv84F)3@*$F2EvJ5>H"
        "%nDZ%r49232^lvDn-u8|p8>TJ0}YY_9ShG8un0R5i3{x(qY3c?d<+K_RSydSZw=EJ0SQk7+6!eAvkqwi^a(-)%?w"
        "x-8waKj=L$6izzs_lnGoF(paUxmc?LxalLQ_OsTKDRf*27FUkG&>%Lt?keGUu+mki|w`xmha{{&+YkpQO=^$SA=g"
        "aHo<niA*?a}~i4jT74qDF|%|MhvPKt^_#^QwyO5w-$E`kqK%H&KF$`dJ&-xR{^^W2?x~*BLz7YhY%SIGYWwOmlfp"
        "?{|&hak_#Oa_7))l`U8aw(*~ak?F0iBe*ohPM;HAGh!RT#)(l}4uMcGcdlShGR2D56zZ4A**%BuWvK4g)K?{!sr5"
        "5uLD;0ACi4@lk@eDr)RTx<Xy%4tqH4cvm-2!L}^AkZ14H8=nzZZ21!vrS~RRFmQ2L{s#Aq1=pHx-2spAGE?l@#L+"
        "{R~S7i~<)6dltzMgA36GTn^_JoeAp$b_@X(#0F0f1p;Xe^cA-U%^3R#NdwdiUlgqlV*&07c@jJX#|%;x6$hXXD;V"
        "JlF9o^{MHZ6~*AXQQKMIWm7!9Kp@eij03l47?#Rw@BLlTh;^%tuO`2?X6?+a5G2?|#P;tXvSyAOvG)eS%l&jIBUG"
        "Yt$7ml&G`<^pjGiwW5SWDM^VvIad5ehOC&r3bqh=?FIi!V66ln+_%yQ32cuDg?C*KotWAjt?0a&k9--9R;WjGZuj"
        "muK-~NcNZ-Rdjtjzkrm$$APa5<`3+qevj{#B0RxN+7Zha<8v&*XF%t9xe+&v0SP$bDnF{9wat-|zOAvVg1PPB3QU"
        "l!!XcQ|3whn9o_X&a$MFh|cTNNG$sSh+5Ujph1I0eHEP8JaeoDe4&RSBa5E(`|`k{7)JND7t&Aq}h*ZwLAhI}3>g"
        "6b_#j?GQr%&Inl%90M{G^#y<q!3hrpnhfX$a}Oy3v<g2H0tJl?7#7<HW)L3<_zQy+Mh4LiTo;D{5(=FXU<B(7b`?"
        "1X#1Bsx1q)LJ-VL`9`w>YD)D)KnA`h(>V+uSCpcvs3FAlmEeFz8<?*e)Y1r$>b2?1>ky9S2}#2Cv983r#G<q0zcz"
        "6?nf3<sAFO#)*RCIzt#&Jpzvs{z3h4-H)hDGS>Wya-1Tl?(Y6uL=DFhzt`IVGnx^4GCKV<_mEYzYcW)01Ar|P6XK"
        "uWECd|vJX8N^9n%)%ner-r4U{THw+LDQ3{^~Dh;(2cn1Rz9S$V}{sp592N*H}mJJ~mZx8_tPX^i!8w&Ice-%Op%@"
        "3Iq=M6OoOBs0ywiovjMGepulLx67Ukhss(*x-gHxE$_F#}5huM9dB{RR^l$qE+*Ef#waGzp6p^9`*C`vMUZUk)o0"
        "c?^>Z9uxN!MG)5uunzGF$_!N%qYu3eNERU(odb*)%@P|8H4B**=McLI9~Es6jsO`6eH7&ka1}ELbOJ*RT?)Y!DGr"
        "Va84_m<@)XM#fePgnGZ0|_cM-)469y?4-w7=QxC}!Tkq;agM*>|Fs|||-77XtWr2)GVegp{(loeM8Z5Sg9aRt>7j"
        "|<%e^A@QIf(#86TMtzO;0tRMxejju`Uyw`(+pk}tPkx9I|arKQ5K&Nyc7x#l^072Bn__>{SSy3$rBe2q84QcToHo"
        "~oeV4j8y4ONX%LqH`wK}1Ul$b$V+8IDc@;bdQW$*#;SDbc=m7o^OboCWv;@i(jRzPI&H|?ey%v@k`xHqJV-58Pa}"
        "vP}B^cWZjSwFUISOD0kQToP4Fe|uiwva-^8^VNR}h5&5DDoEbQCuR0}4?D+ze+GwGV3o&kZvf>=Ca6o);|*M+=n&"
        "AP)Hu%?U9T^ad*lc>~=JlL7Y(MF(3LUj^z7!w}#Uy#$sAtQf`?0st5hv<1o*=mGu`ng_5Lw+luA(Fq>}H5G#ooei"
        "V_x)D|eY!~|siUOb$JP1-5feV`n=>z{1O%G=c`3Oe?s}5lScM`=6P!$sgo)0YrLl%(`BMkfwiv*z+?+*zMH~>x&>"
        "IDE7j|?6HG!xJV<`@SGRRp;Y(+%1H@DYp#q8Bj@zyj72atMeS*8@8b=Lj_e+6l7^7Z}Y78wGz5c?8`Lu?S-hFA{w"
        "W;TQWANf37c0twp-DF*ckLj=wYSrw-bG8n-POcoCaB^gr*p#!%R1rNIc(GnjGZ3mqezX>B1aSw|P9SLg#&kkA_g#"
        "qad!VgUt0}E#sKp962VG5oYq6HKHDiOv7+!kvL`T-CVtOvpv@CeBZ;|VbYl@G5Ch!C~_%n@h?eisc5oC2~FP6%Wf"
        "lM5actqJ=B5fyn23kg{RZxp=_a{-AG*9<!t@d`f$H4L*A0T3GwN&sLH`~?yhp$sqrMib%(_!$2S8470veHH8g0ur"
        "7Ev=>7S(gNrcgb11$X$yl1=M<_2H4je>;Rr<(lMby6`vwshc@P8{3k)R+a|DSM*AMXxs|fi54-{Pv69IP&#Rl6Kk"
        "qX}g^%X-9aRAi|WC8C9Jp{-MQx%~PZ4<i<n**^F%Muw4X9qJ2fd!Wq<q)3>xd{gZYY&ADWdnN@$qs)3l@j9&F$ZB"
        "5uMj~DsRX|j01=r8=K}o`0Rd$Uvj*c8UjQc;-3coMwhTcP1P6}~MFP+YTN9}bi36V$xe|N?2MtvRAq&$GDFBTN+X"
        "e9!908{Z^#gzm3l&)pnhJ9bOc2)?1qo9F-V13Iw+?Lq_z8m&Mg-9eTooS&st+|7>k2sq#0^gtoe)+DFARMKNea{w"
        "mjogWtrhzZh8VE|#}gF}V+eT}&j=j@HvyXrbPp;585U;{`3pw|(hd^}o)YW~cNN7C-wiDY{1LwcBM+_@?-H^EJq@"
        "J=yA}x%dkgs#M-O2Q^9WZITLEzrzYIzhBN!(IvJD*!Hwv2-=??=A3j-k(Zw@5^I}(Wu*9Pqu7y_dT@dO7Jg8-Qk="
        "L<CkOBVqOPXyWwWfijze-q6OSQarEUkR-P#{u0ED-DkrMGL7Gu?wUOmkoCVjTGAskpcA#LkABFQw(hiy97oJ(G>^"
        ")9uc|)&=y||?g0c7pa-@Xy$ja~B?LPai4Up(z!6*qau)#&kOHO?LI_wHhYMg1p$YE;1r<{d-WOvOu@3SH%M2L@FB"
        "s(tGX*IOxB<=*rxo=NR1xq61{W~_ZVx&W)(7ku^9v0MaTUK0*$v<T_7Rc>s24X4#sb_EcnFReK@VFE?Fc&qRRJyp"
        "xeNyf9T?LJtPM97`Uiy&7YrK|X$~I&H4=ji(FOq)PY{z4;S2i-Nd(jkUlpwn#|<kPSqY~DG7P;G3lG;4B@J^2s|&"
        ">mDHQ@3xC)UCaRY}GU>Bhh?+khsJqLaQloQw#+yOuh%M}?AS_`NJz7`q)FcHiJ;uZh`789}u$QbDfHv~-;n-9DI("
        "h+V3gclPHq5`-RR0wJrnF|2~We=tbe+>}{c>&!FK^XT6TNbGh$^p3*Pyl8T0tOftHUdl&=m-879|~;*gB9`s2oj_"
        "Qx)(_e*aGeoiU^<?"
    ),
}
